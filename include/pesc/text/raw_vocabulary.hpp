// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pesc/io/quoted.hpp"
#include "pesc/text/byte_alphabet.hpp"
#include "pesc/text/detail/refusal.hpp"
#include "pesc/text/merge_table.hpp"
#include "pesc/text/vocabulary.hpp"

namespace pesc {

/// \brief How the text pieces of a file are written.
enum class piece_spelling : std::uint8_t {
  spaced,      ///< U+2581 for a space
  byte_level,  ///< a code point of `byte_alphabet` for each byte
};

/// \brief U+2581 as spaces.
[[nodiscard]] inline std::string unmarked_spaces(std::string_view text) {
  constexpr std::string_view mark = "\xE2\x96\x81";
  std::string out;
  for (std::size_t i = 0; i < text.size();) {
    const bool here = text.substr(i).starts_with(mark);
    out += here ? ' ' : text[i];
    i += here ? mark.size() : 1;
  }
  return out;
}

/// \brief Pieces as a file writes them, by id, and the pairs that join, found by their text.
class raw_vocabulary {
 public:
  /// \param file  name for messages
  raw_vocabulary(std::string file, piece_spelling spelling) : file_{std::move(file)}, spelling_{spelling} {}

  [[nodiscard]] const std::string& file() const { return file_; }
  [[nodiscard]] std::int32_t size() const { return written_.size(); }
  [[nodiscard]] piece_kind kind(std::int32_t id) const { return kinds_[static_cast<std::size_t>(id)]; }
  [[nodiscard]] std::string_view piece(std::int32_t id) const { return written_.piece(id); }

  /// \brief Id of the piece that is written so, of any kind; -1 when there is none.
  [[nodiscard]] std::int32_t find(std::string_view piece) const { return written_.find(piece); }

  /// \brief Adds the piece with the next id.
  /// \throws format_error at 2^31 pieces and for a byte piece that names no byte
  void add(std::string_view piece, piece_kind kind) {
    if (size() == std::numeric_limits<std::int32_t>::max())
      detail::refuse(file_, "too many pieces", "2^31", "fewer", "the vocabulary");
    if (kind == piece_kind::byte && !byte_of_piece(piece))
      detail::refuse(file_, "wrong byte piece", in_quotes(piece), "<0x00> to <0xFF>",
                     detail::concat("piece ", size()));
    written_.add(piece, piece_kind::text);
    kinds_.push_back(kind);
  }

  void set_kind(std::int32_t id, piece_kind kind) { kinds_[static_cast<std::size_t>(id)] = kind; }

  /// \brief The pieces as the text that they stand for. What no text can become turns `literal`.
  [[nodiscard]] vocabulary to_text() const;

  /// \brief Adds the pair of the next rank.
  /// \param where  place of the pair, for messages; empty: its number
  /// \throws format_error when one of the three pieces does not exist
  void add_merge(std::string_view left, std::string_view right, const std::string& where = {}) {
    const auto id_of = [&, this](std::string_view piece) {
      const std::int32_t id = find(piece);
      if (id < 0)
        detail::refuse(file_, "merge of an unknown piece", in_quotes(piece), "a piece of the vocabulary",
                       place(where), "The file may be cut short or put together from two models.");
      return id;
    };
    const std::int32_t a = id_of(left), b = id_of(right);
    const std::int32_t joined = id_of(std::string{left} + std::string{right});
    // A mark comes from being named where that is allowed; letters that join must not make one.
    if (kind(joined) != piece_kind::control) merges_.add(a, b, {rank_, joined});
    ++rank_;
  }

  /// \brief Adds the pair of the next rank, written with one space between its pieces.
  void add_written_merge(std::string_view pair, const std::string& where = {}) {
    const std::size_t space = pair.find(' ');
    if (space == std::string_view::npos || space == 0 || space + 1 == pair.size() ||
        pair.find(' ', space + 1) != std::string_view::npos)
      detail::refuse(file_, "wrong merge", in_quotes(pair), "two pieces with one space between them",
                     place(where));
    add_merge(pair.substr(0, space), pair.substr(space + 1), where);
  }

  /// \brief The pairs added so far; call once.
  [[nodiscard]] merge_table take_merges() {
    merges_.finish();
    return std::move(merges_);
  }

 private:
  [[nodiscard]] std::string place(const std::string& where) const {
    return where.empty() ? detail::concat("merge ", rank_) : where;
  }

  std::string file_;
  piece_spelling spelling_;
  vocabulary written_;  ///< all as text, so that all are found
  std::vector<piece_kind> kinds_;
  merge_table merges_;
  std::int32_t rank_ = 0;
};

inline vocabulary raw_vocabulary::to_text() const {
  vocabulary out;
  for (std::int32_t id = 0; id < size(); ++id) {
    const std::string_view piece = written_.piece(id);
    const bool spaced = spelling_ == piece_spelling::spaced;
    if (kind(id) == piece_kind::literal && spaced) {
      out.add(unmarked_spaces(piece), piece_kind::literal);
    } else if (kind(id) != piece_kind::text) {
      out.add(piece, kind(id));
    } else if (spaced) {
      // A space in a text is U+2581 by the time that pieces are looked up, so a piece with a space never is.
      const bool found = piece.find(' ') == std::string_view::npos;
      out.add(unmarked_spaces(piece), found ? piece_kind::text : piece_kind::literal);
    } else {
      const auto bytes = byte_alphabet::read(piece);
      out.add(bytes ? std::string_view{*bytes} : piece, bytes ? piece_kind::text : piece_kind::literal);
    }
  }
  return out;
}

}  // namespace pesc
