// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "pesc/core/types.hpp"

namespace pesc {

/// \brief What a piece of a vocabulary stands for.
enum class piece_kind : std::uint8_t {
  text,     ///< characters
  byte,     ///< one byte, written as <0xNN>
  control,  ///< a mark such as the start of a text; never comes from text
  unknown,  ///< stands for what no piece covers
  literal,  ///< text that comes only from being cut out whole, never from joining
};

/// \brief Pieces by id and ids by piece. A value: copies share nothing.
class vocabulary {
 public:
  /// \brief The number of a piece as ids have it.
  [[nodiscard]] std::int32_t size() const { return static_cast<std::int32_t>(kinds_.size()); }

  /// \brief Adds the piece with the next id.
  void add(std::string_view piece, piece_kind kind) {
    bytes_ += piece;
    ends_.push_back(bytes_.size());
    kinds_.push_back(kind);
    if (kind == piece_kind::text) insert(size() - 1);
  }

  [[nodiscard]] std::string_view piece(std::int32_t id) const {
    const auto i = static_cast<std::size_t>(id);
    const std::size_t begin = i == 0 ? 0 : ends_[i - 1];
    return std::string_view{bytes_}.substr(begin, ends_[i] - begin);
  }
  [[nodiscard]] piece_kind kind(std::int32_t id) const { return kinds_[static_cast<std::size_t>(id)]; }

  /// \brief Id of the text piece with exactly these bytes, the lowest if there are several; -1 when there is none.
  [[nodiscard]] std::int32_t find(std::string_view text) const {
    if (slots_.empty()) return -1;
    for (std::size_t i = slot(text);; i = (i + 1) & (slots_.size() - 1)) {
      if (slots_[i] < 0 || piece(slots_[i]) == text) return slots_[i];
    }
  }

 private:
  // Open addressing over ids, at most half full: no pointers into the pieces, so copying needs no care.
  [[nodiscard]] std::size_t slot(std::string_view text) const {
    return std::hash<std::string_view>{}(text) & (slots_.size() - 1);
  }

  void insert(std::int32_t id) {
    if (2 * (used_ + 1) > slots_.size()) grow();
    std::size_t i = slot(piece(id));
    for (; slots_[i] >= 0; i = (i + 1) & (slots_.size() - 1))
      if (piece(slots_[i]) == piece(id)) return;
    slots_[i] = id;
    ++used_;
  }

  void grow() {
    std::vector<std::int32_t> old(slots_.empty() ? 64 : 2 * slots_.size(), -1);
    old.swap(slots_);
    for (const std::int32_t id : old) {
      if (id < 0) continue;
      std::size_t i = slot(piece(id));
      while (slots_[i] >= 0) i = (i + 1) & (slots_.size() - 1);
      slots_[i] = id;
    }
  }

  std::string bytes_;
  std::vector<std::size_t> ends_;
  std::vector<piece_kind> kinds_;
  std::vector<std::int32_t> slots_;
  std::size_t used_ = 0;
};

/// \brief The byte that a piece like "<0x0A>" stands for: two hexadecimal digits, nothing else.
[[nodiscard]] constexpr std::optional<std::uint8_t> byte_of_piece(std::string_view piece) {
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece[5] != '>') return {};
  unsigned value = 0;
  for (const char c : piece.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                             : -1;
    if (digit < 0) return {};
    value = 16 * value + static_cast<unsigned>(digit);
  }
  return static_cast<std::uint8_t>(value);
}

}  // namespace pesc
