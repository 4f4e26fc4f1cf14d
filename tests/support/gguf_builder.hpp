// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "pesc/core/types.hpp"

namespace support {

/// \brief Puts a GGUF file together byte by byte, also ones that no reader should take.
class gguf_builder {
 public:
  std::uint32_t version = 3;
  pesc::index_t alignment = 32;  ///< between tensors; a key "general.alignment" is the caller's

  template <class T>
  gguf_builder& key(std::string_view name, std::uint32_t type, T value) {
    ++keys_;
    text(front_, name);
    number(front_, type);
    number(front_, value);
    return *this;
  }
  gguf_builder& u32(std::string_view name, std::uint32_t value) { return key(name, 4, value); }
  gguf_builder& f32(std::string_view name, float value) { return key(name, 6, value); }
  gguf_builder& flag(std::string_view name, bool value) {
    return key(name, 7, static_cast<std::uint8_t>(value));
  }
  gguf_builder& string(std::string_view name, std::string_view value) {
    ++keys_;
    text(front_, name);
    number(front_, std::uint32_t{8});
    text(front_, value);
    return *this;
  }
  template <class T>
  gguf_builder& list(std::string_view name, std::uint32_t type, const std::vector<T>& values) {
    ++keys_;
    text(front_, name);
    number(front_, std::uint32_t{9});
    number(front_, type);
    number(front_, static_cast<std::uint64_t>(values.size()));
    for (const T& value : values) {
      if constexpr (std::is_convertible_v<T, std::string_view>)
        text(front_, value);
      else
        number(front_, value);
    }
    return *this;
  }

  /// \param dims  innermost first, as the file has them
  gguf_builder& tensor(std::string_view name, std::vector<std::uint64_t> dims, std::uint32_t type,
                       const std::vector<std::byte>& values) {
    pad(data_);
    return raw_tensor(name, dims, type, data_.size(), values);
  }
  gguf_builder& floats(std::string_view name, std::vector<std::uint64_t> dims,
                       const std::vector<float>& values) {
    std::vector<std::byte> bytes(4 * values.size());
    if (!bytes.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
    return tensor(name, std::move(dims), 0, bytes);
  }
  /// \brief A tensor with any offset.
  gguf_builder& raw_tensor(std::string_view name, const std::vector<std::uint64_t>& dims, std::uint32_t type,
                           std::uint64_t offset, const std::vector<std::byte>& values) {
    ++tensors_;
    text(table_, name);
    number(table_, static_cast<std::uint32_t>(dims.size()));
    for (const std::uint64_t d : dims) number(table_, d);
    number(table_, type);
    number(table_, offset);
    data_.insert(data_.end(), values.begin(), values.end());
    return *this;
  }

  [[nodiscard]] std::vector<std::byte> bytes() const {
    std::vector<std::byte> out;
    for (const char c : std::string_view{"GGUF"}) out.push_back(static_cast<std::byte>(c));
    number(out, version);
    number(out, tensors_);
    number(out, keys_);
    out.insert(out.end(), front_.begin(), front_.end());
    out.insert(out.end(), table_.begin(), table_.end());
    pad(out);
    out.insert(out.end(), data_.begin(), data_.end());
    return out;
  }

 private:
  template <class T>
  static void number(std::vector<std::byte>& out, T value) {
    const auto* from = reinterpret_cast<const std::byte*>(&value);
    out.insert(out.end(), from, from + sizeof value);
  }
  static void text(std::vector<std::byte>& out, std::string_view value) {
    number(out, static_cast<std::uint64_t>(value.size()));
    const auto* from = reinterpret_cast<const std::byte*>(value.data());
    out.insert(out.end(), from, from + value.size());
  }
  void pad(std::vector<std::byte>& out) const {
    while (static_cast<pesc::index_t>(out.size()) % alignment != 0) out.push_back(std::byte{0});
  }

  std::uint64_t tensors_ = 0, keys_ = 0;
  std::vector<std::byte> front_, table_, data_;
};

}  // namespace support
