// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pesc/io/detail/safetensors_header.hpp"
#include "pesc/io/element_type.hpp"
#include "pesc/io/file.hpp"
#include "pesc/io/mapped_file.hpp"
#include "pesc/io/quoted.hpp"

namespace pesc {

static_assert(std::endian::native == std::endian::little,
              "pesc: files are little-endian, and so must be the machine");

/// \brief How a file of tensors is opened.
struct open_options {
  bool map = false;        ///< map the file instead of reading it; see `mapped_file` for what that risks
  bool on_demand = false;  ///< leave values in the file, to be read tensor by tensor as `loaded_tensor`
};

/// \brief An open safetensors file. Everything is checked on opening; its tensors may be used until it is destroyed.
class safetensors_file {
 public:
  safetensors_file() = default;

  /// \throws io_error, format_error
  [[nodiscard]] static safetensors_file open(const std::string& path, open_options options = {}) {
    safetensors_file out;
    out.name_ = path;
    if (options.map) {
      out.mapped_ = mapped_file{path};
      out.parse(out.mapped_.bytes());
    } else {
      out.read(path, options.on_demand);
    }
    return out;
  }

  /// \param name  stands for the file's name in messages
  /// \throws format_error
  [[nodiscard]] static safetensors_file from_bytes(std::string name, std::vector<std::byte> bytes) {
    safetensors_file out;
    out.name_ = std::move(name);
    out.owned_ = std::move(bytes);
    out.parse(out.owned_);
    return out;
  }

  [[nodiscard]] const std::string& name() const { return name_; }

  /// \brief The `__metadata__` of the file.
  [[nodiscard]] const std::map<std::string, std::string, std::less<>>& metadata() const {
    return header_.metadata;
  }

  /// \brief All tensors, sorted by name.
  [[nodiscard]] const std::vector<tensor_info>& tensors() const { return header_.tensors; }

  /// \brief Names of all tensors, sorted.
  [[nodiscard]] std::vector<std::string> names() const {
    std::vector<std::string> out;
    for (const tensor_info& tensor : header_.tensors) out.push_back(tensor.name);
    return out;
  }

  /// \brief The tensor of that name, or null.
  [[nodiscard]] const tensor_info* find(std::string_view name) const {
    const auto& list = header_.tensors;
    const auto at = std::lower_bound(list.begin(), list.end(), name,
                                     [](const tensor_info& t, std::string_view n) { return t.name < n; });
    return at != list.end() && at->name == name ? &*at : nullptr;
  }

  /// \throws format_error when there is no such tensor
  [[nodiscard]] const tensor_info& get(std::string_view name) const {
    const tensor_info* tensor = find(name);
    if (tensor == nullptr)
      detail::raise<format_error>(
          detail::concat(name_, ": there is no tensor ", in_quotes(name), " among ", header_.tensors.size()));
    return *tensor;
  }

  /// \brief Values of an F32, F16, BF16 or F64 tensor as float, rounded from F64.
  /// \throws format_error
  [[nodiscard]] std::vector<float> read_floats(std::string_view name) const {
    return to_floats(get(name), name_);
  }

  /// \brief Values of a tensor of exactly the type `T`; no conversion.
  /// \throws format_error
  template <class T>
  [[nodiscard]] std::vector<T> read(std::string_view name) const {
    return values_of<T>(get(name), name_);
  }

 private:
  /// \brief Checks the header before memory for the data is taken.
  void read(const std::string& path, bool on_demand) {
    auto [file, size] = detail::open_to_read(path);
    std::vector<std::byte> start(static_cast<std::size_t>(std::min<index_t>(size, 512)));
    detail::read_exactly(file.get(), start, path);
    const std::size_t json_size = detail::safetensors_json_size(start, size, path);
    const std::size_t have = start.size();
    const std::size_t front = std::max(have, 8 + json_size);
    start.resize(front);
    detail::read_exactly(file.get(), std::span{start}.subspan(have), path);
    const index_t data_size = size - 8 - static_cast<index_t>(json_size);
    header_ = detail::parse_safetensors(as_text(start).substr(8, json_size), data_size, path);

    if (on_demand) {
      for (tensor_info& tensor : header_.tensors) {
        tensor.file = file.get();
        tensor.position = 8 + static_cast<index_t>(json_size) + tensor.offset;
      }
      file_ = std::move(file);
      return;
    }
    owned_.resize(static_cast<std::size_t>(data_size));
    const std::span<const std::byte> early = std::span<const std::byte>{start}.subspan(8 + json_size);
    std::copy(early.begin(), early.end(), owned_.begin());
    detail::read_exactly(file.get(), std::span{owned_}.subspan(early.size()), path);
    bind(owned_);
  }

  void parse(std::span<const std::byte> bytes) {
    const std::size_t json_size =
        detail::safetensors_json_size(bytes, static_cast<index_t>(bytes.size()), name_);
    const auto data = bytes.subspan(8 + json_size);
    header_ = detail::parse_safetensors(as_text(bytes).substr(8, json_size),
                                        static_cast<index_t>(data.size()), name_);
    bind(data);
  }

  void bind(std::span<const std::byte> data) {
    for (tensor_info& tensor : header_.tensors)
      tensor.bytes =
          data.subspan(static_cast<std::size_t>(tensor.offset), static_cast<std::size_t>(tensor.size));
  }

  std::string name_;
  detail::descriptor file_;
  std::vector<std::byte> owned_;
  mapped_file mapped_;
  detail::safetensors_header header_;
};

}  // namespace pesc
