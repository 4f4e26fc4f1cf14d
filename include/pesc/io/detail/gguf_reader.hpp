// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pesc/core/error.hpp"
#include "pesc/core/types.hpp"
#include "pesc/io/element_type.hpp"
#include "pesc/io/file.hpp"
#include "pesc/io/quoted.hpp"

namespace pesc::detail {

/// \brief Reads the front of a file byte by byte in order, from memory or from a descriptor, which fetches more as it is needed.
///
/// Every size is compared with what is left of the file before it is used.
class gguf_reader {
 public:
  /// \param name  for messages
  gguf_reader(std::string name, std::span<const std::byte> whole)
      : name_{std::move(name)},
        size_{static_cast<index_t>(whole.size())},
        have_(whole.begin(), whole.end()) {}
  gguf_reader(std::string name, int file, index_t size) : name_{std::move(name)}, file_{file}, size_{size} {}

  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] index_t at() const { return at_; }
  [[nodiscard]] index_t size() const { return size_; }
  [[nodiscard]] index_t left() const { return size_ - at_; }

  /// \brief The first `count` bytes, or the whole file if it is shorter; for looking at its kind.
  [[nodiscard]] std::span<const std::byte> front(index_t count) {
    fetch(std::min(count, size_));
    return std::span<const std::byte>{have_}.first(static_cast<std::size_t>(std::min(count, size_)));
  }

  /// \brief The bytes read so far; places in it stay valid as offsets only.
  [[nodiscard]] std::vector<std::byte> take() && { return std::move(have_); }

  /// \throws format_error when the file ends before
  template <class T>
  [[nodiscard]] T number(const char* what) {
    const index_t place = skip(sizeof(T), what);  // may move the bytes
    return load_unaligned<T>(have_.data() + place);
  }

  /// \brief Moves behind `count` bytes and gives the offset of the first.
  index_t skip(index_t count, const char* what) {
    if (count > left())
      fail(concat("the file ends inside ", what, ": ", count, " bytes are needed, ", left(),
                  " are left. The download may be cut short."));
    fetch(at_ + count);
    at_ += count;
    return at_ - count;
  }

  /// \brief A length and that many bytes; gives the offset of the first byte and the length.
  struct text_place {
    index_t first = 0;
    index_t length = 0;
  };
  [[nodiscard]] text_place text(const char* what) {
    constexpr std::uint64_t longest = std::uint64_t{64} << 20;
    const index_t begin = at_;
    const auto length = number<std::uint64_t>(what);
    if (length > longest || static_cast<index_t>(length) > left()) {
      at_ = begin;
      fail(concat(what, " of ", length, " bytes, ", left() - 8, " are left of the file"));
    }
    return {skip(static_cast<index_t>(length), what), static_cast<index_t>(length)};
  }

  [[nodiscard]] std::string string(const char* what) {
    const text_place place = text(what);
    return {reinterpret_cast<const char*>(have_.data()) + place.first,
            static_cast<std::size_t>(place.length)};
  }

  [[noreturn]] void fail(const std::string& what) const {
    raise<format_error>(concat(name_, ": byte ", at_, ": ", what));
  }

 private:
  void fetch(index_t end) {
    const auto have = static_cast<index_t>(have_.size());
    if (end <= have) return;
    constexpr index_t least = index_t{64} << 10;
    const index_t wanted = std::min(size_, std::max(end, 2 * have + least));
    have_.resize(static_cast<std::size_t>(wanted));
    read_exactly_at(file_, have, std::span{have_}.subspan(static_cast<std::size_t>(have)), name_);
  }

  std::string name_;
  int file_ = -1;
  index_t size_ = 0;
  index_t at_ = 0;
  std::vector<std::byte> have_;
};

}  // namespace pesc::detail
