// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <queue>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pesc/core/error.hpp"
#include "pesc/core/types.hpp"
#include "pesc/text/merge_table.hpp"
#include "pesc/text/utf8.hpp"
#include "pesc/text/vocabulary.hpp"

namespace pesc {

/// \brief Choices of one call of `encode`.
struct encode_options {
  bool bos = true;           ///< begin with the mark of a text's start
  bool eos = false;          ///< end with the mark of a text's end
  bool dummy_prefix = true;  ///< one space before the text, where the vocabulary was trained so
};

/// \brief Choices of `decode`.
struct decode_options {
  bool skip_control = true;  ///< leave marks out instead of printing their names
  bool strip_prefix = true;  ///< drop the one space that `encode` put before a text
};

/// \brief Everything that differs between tokenizers of this family; what a loader fills in.
struct tokenizer_parts {
  std::string name;  ///< the file, for messages
  vocabulary pieces;
  merge_table merges;
  std::int32_t bos = -1;  ///< -1: there is none
  std::int32_t eos = -1;
  std::int32_t unk = -1;
  bool dummy_prefix = true;
};

/// \brief Turns text into ids and back by byte-pair encoding over characters, with bytes for what has no piece.
class tokenizer {
 public:
  tokenizer() = default;

  /// \throws format_error when neither an unknown piece nor all 256 byte pieces exist
  explicit tokenizer(tokenizer_parts parts) : parts_{std::move(parts)} {
    byte_ids_.fill(-1);
    for (std::int32_t id = 0; id < size(); ++id) {
      if (parts_.pieces.kind(id) != piece_kind::byte) continue;
      const auto byte = byte_of_piece(parts_.pieces.piece(id));
      if (byte && byte_ids_[*byte] < 0) byte_ids_[*byte] = id;
    }
    has_all_bytes_ = true;
    for (const std::int32_t id : byte_ids_) has_all_bytes_ = has_all_bytes_ && id >= 0;
    if (!has_all_bytes_ && parts_.unk < 0)
      detail::raise<format_error>(parts_.name +
                                  ": the vocabulary has no unknown piece and not all 256 byte pieces, "
                                  "so some texts would have no ids");
  }

  [[nodiscard]] const std::string& name() const { return parts_.name; }
  [[nodiscard]] std::int32_t size() const { return parts_.pieces.size(); }
  [[nodiscard]] std::int32_t bos() const { return parts_.bos; }
  [[nodiscard]] std::int32_t eos() const { return parts_.eos; }
  [[nodiscard]] std::int32_t unk() const { return parts_.unk; }

  /// \brief Whether every text comes back from its ids unchanged.
  [[nodiscard]] bool has_all_bytes() const { return has_all_bytes_; }

  /// \brief The piece as the vocabulary has it.
  [[nodiscard]] std::string_view piece(std::int32_t id) const {
    check(id);
    return parts_.pieces.piece(id);
  }

  /// \brief Ids of `text`; bytes that are not UTF-8 get the ids of their byte pieces. Time n log n.
  [[nodiscard]] std::vector<std::int32_t> encode(std::string_view text,
                                                 const encode_options& options = {}) const;

  /// \brief The bytes that ids stand for; they need not be whole characters.
  /// \throws shape_error for an id outside the vocabulary
  [[nodiscard]] std::string decode(std::span<const std::int32_t> ids,
                                   const decode_options& options = {}) const {
    std::string out;
    bool at_start = options.strip_prefix;
    for (const std::int32_t id : ids) {
      if (is_control(id)) {
        if (!options.skip_control) out += parts_.pieces.piece(id);
        at_start = options.strip_prefix && (at_start || id == parts_.bos);
        continue;
      }
      out += decode_piece(id, at_start);
      at_start = false;
    }
    return out;
  }

  /// \brief The bytes of one id, for output as it comes; empty for marks.
  /// \param at_start  the id is the first of a text: the space that `encode` puts there is dropped
  /// \throws shape_error for an id outside the vocabulary
  [[nodiscard]] std::string_view decode_piece(std::int32_t id, bool at_start = false) const {
    check(id);
    std::string_view piece = parts_.pieces.piece(id);
    if (parts_.pieces.kind(id) == piece_kind::control) return {};
    if (parts_.pieces.kind(id) == piece_kind::byte)
      piece = {&all_bytes()[byte_of_piece(piece).value_or(0)], 1};
    return at_start && parts_.dummy_prefix && piece.starts_with(' ') ? piece.substr(1) : piece;
  }

  [[nodiscard]] bool is_control(std::int32_t id) const {
    check(id);
    return parts_.pieces.kind(id) == piece_kind::control;
  }

  /// \brief Checks that every row of an embedding has a piece.
  /// \throws format_error
  void expect_vocabulary(index_t rows) const {
    if (size() != rows)
      detail::raise<format_error>(detail::concat(parts_.name, " has ", size(), " pieces, the embedding has ",
                                                 rows,
                                                 " rows. Use the tokenizer that belongs to the model."));
  }

 private:
  struct symbol {
    std::int32_t id;
    std::int32_t previous;
    std::int32_t next;
  };

  void check(std::int32_t id) const {
    PESC_EXPECTS(id >= 0 && id < size(), parts_.name, ": id ", id, " is outside the vocabulary of ", size(),
                 " pieces");
  }

  [[nodiscard]] static const std::array<char, 256>& all_bytes() {
    static const std::array<char, 256> bytes = [] {
      std::array<char, 256> out{};
      for (std::size_t i = 0; i < 256; ++i) out[i] = static_cast<char>(static_cast<unsigned char>(i));
      return out;
    }();
    return bytes;
  }

  [[nodiscard]] std::vector<std::int32_t> characters(std::string_view text) const;
  [[nodiscard]] std::vector<std::int32_t> merged(std::vector<std::int32_t> ids) const;

  tokenizer_parts parts_;
  std::array<std::int32_t, 256> byte_ids_{};
  bool has_all_bytes_ = false;
};

/// \brief One id per character, or the ids of its bytes; characters without both share one unknown piece.
inline std::vector<std::int32_t> tokenizer::characters(std::string_view text) const {
  std::vector<std::int32_t> out;
  out.reserve(text.size());
  while (!text.empty()) {
    const utf8_step step = utf8_first(text);
    const std::string_view character = text.substr(0, step.length);
    text.remove_prefix(step.length);
    const std::int32_t id = step.what == utf8_step::kind::character ? parts_.pieces.find(character) : -1;
    if (id >= 0) {
      out.push_back(id);
    } else if (has_all_bytes_) {
      for (const char c : character) out.push_back(byte_ids_[static_cast<unsigned char>(c)]);
    } else if (out.empty() || out.back() != parts_.unk) {
      out.push_back(parts_.unk);
    }
  }
  return out;
}

/// \brief Joins the best pair until none is left: lowest rank first, leftmost among equals.
inline std::vector<std::int32_t> tokenizer::merged(std::vector<std::int32_t> ids) const {
  struct candidate {
    std::int32_t rank, left, left_id, right_id;
    // The queue hands out the greatest first.
    bool operator<(const candidate& b) const { return rank != b.rank ? rank > b.rank : left > b.left; }
  };
  const auto count = static_cast<std::int32_t>(ids.size());
  std::vector<symbol> list(ids.size());
  for (std::int32_t i = 0; i < count; ++i)
    list[static_cast<std::size_t>(i)] = {ids[static_cast<std::size_t>(i)], i - 1, i + 1 < count ? i + 1 : -1};
  const auto at = [&](std::int32_t i) -> symbol& { return list[static_cast<std::size_t>(i)]; };

  std::priority_queue<candidate> queue;
  const auto consider = [&](std::int32_t left) {
    if (left < 0 || at(left).next < 0) return;
    const std::int32_t right_id = at(at(left).next).id;
    if (const auto* merge = parts_.merges.find(at(left).id, right_id))
      queue.push({merge->rank, left, at(left).id, right_id});
  };
  for (std::int32_t i = 0; i < count; ++i) consider(i);
  while (!queue.empty()) {
    const candidate best = queue.top();
    queue.pop();
    symbol& left = at(best.left);
    // A pair that has changed since it was queued was queued again in its new form.
    if (left.id != best.left_id || left.next < 0 || at(left.next).id != best.right_id) continue;
    const std::int32_t gone = left.next;
    left.id = parts_.merges.find(best.left_id, best.right_id)->piece;
    left.next = at(gone).next;
    if (left.next >= 0) at(left.next).previous = best.left;
    at(gone).id = -1;
    consider(left.previous);
    consider(best.left);
  }
  std::vector<std::int32_t> out;
  for (std::int32_t i = count > 0 ? 0 : -1; i >= 0; i = at(i).next) out.push_back(at(i).id);
  return out;
}

inline std::vector<std::int32_t> tokenizer::encode(std::string_view text,
                                                   const encode_options& options) const {
  PESC_EXPECTS(text.size() < std::size_t{1} << 30, parts_.name, ": a text of ", text.size(),
               " bytes is too long to encode at once, at most 2^30");
  std::vector<std::int32_t> out;
  if (options.bos && parts_.bos >= 0) out.push_back(parts_.bos);
  if (!text.empty()) {
    std::string prefixed;
    if (options.dummy_prefix && parts_.dummy_prefix) prefixed = ' ' + std::string{text};
    const std::vector<std::int32_t> ids =
        merged(characters(prefixed.empty() ? text : std::string_view{prefixed}));
    out.insert(out.end(), ids.begin(), ids.end());
  }
  if (options.eos && parts_.eos >= 0) out.push_back(parts_.eos);
  return out;
}

}  // namespace pesc
