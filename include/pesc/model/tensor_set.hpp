// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pesc/io/tensor_info.hpp"

namespace pesc {

/// \brief Owns some tensors of a file, in the type in which the file has them, after the file is closed.
class tensor_set {
 public:
  tensor_set() = default;
  tensor_set(tensor_set&&) noexcept = default;
  tensor_set& operator=(tensor_set&&) noexcept = default;

  /// \brief Copies the values of `tensor`; a second one of the same name is ignored.
  /// \param file  name for messages
  /// \throws io_error
  void add(const tensor_info& tensor, std::string name, const std::string& file) {
    if (tensors_.find(name) != tensors_.end()) return;
    const loaded_tensor values(tensor, file);
    add(tensor, std::move(name), std::vector<std::byte>(values->bytes.begin(), values->bytes.end()));
  }

  /// \brief A tensor of the type and shape of `like` with values of its own; a second one of the same name is ignored.
  void add(const tensor_info& like, std::string name, std::vector<std::byte> bytes) {
    const auto [at, is_new] = tensors_.try_emplace(name);
    if (!is_new) return;
    entry& e = at->second;
    e.bytes = std::move(bytes);
    e.info = like;
    e.info.file = -1;
    e.info.name = std::move(name);
    e.info.bytes = e.bytes;
  }

  /// \brief Forgets the tensors of whose names `is_one` says so.
  template <class Predicate>
  void remove_if(Predicate&& is_one) {
    std::erase_if(tensors_, [&](const auto& named) { return is_one(named.first); });
  }

  /// \brief The tensor of that name, or null.
  [[nodiscard]] const tensor_info* find(std::string_view name) const {
    const auto at = tensors_.find(name);
    return at == tensors_.end() ? nullptr : &at->second.info;
  }

  [[nodiscard]] index_t size() const { return static_cast<index_t>(tensors_.size()); }
  [[nodiscard]] bool empty() const { return tensors_.empty(); }

  /// \brief Names in their order.
  [[nodiscard]] std::vector<std::string> names() const {
    std::vector<std::string> out;
    for (const auto& [name, tensor] : tensors_) out.push_back(name);
    return out;
  }

 private:
  struct entry {
    tensor_info info;
    std::vector<std::byte> bytes;
  };
  std::map<std::string, entry, std::less<>> tensors_;
};

}  // namespace pesc
