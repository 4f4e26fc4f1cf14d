// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "pesc/text/added_tokens.hpp"
#include "pesc/text/merge_table.hpp"
#include "pesc/text/split_pattern.hpp"
#include "pesc/text/vocabulary.hpp"

namespace pesc {

/// \brief Where `encode` puts a space that the text does not have. A text is what stands between added tokens.
enum class prefix_rule : std::uint8_t {
  none,
  always,              ///< before every text
  unless_space,        ///< before every text that does not start with a space
  start_unless_space,  ///< before a text that does not start with a space, where nothing stands before it
};

/// \brief Which space `decode` leaves out, for `encode` had put it there.
enum class strip_rule : std::uint8_t {
  none,
  start,    ///< the first character of the output
  each_bos  ///< that, and the first behind every mark of a start
};

/// \brief Everything that differs between tokenizers of this family; what a loader fills in.
///
/// Pieces are the text that they stand for: spaces are spaces, and pieces of byte-level vocabularies are bytes.
struct tokenizer_parts {
  std::string name;  ///< the file, for messages
  vocabulary pieces;
  merge_table merges;
  std::int32_t bos = -1;  ///< -1: there is none
  std::int32_t eos = -1;
  std::int32_t unk = -1;
  bool add_bos = true;  ///< texts begin with `bos` unless a caller wants otherwise
  bool byte_level =
      false;  ///< pieces join from bytes; else from characters, with bytes for those without a piece
  bool ignore_merges = false;  ///< a part of a text that is a piece becomes it, whatever the merges say
  bool fuse_unk = true;        ///< neighbours without a piece share one unknown
  std::string unk_text;        ///< what `decode` writes for the unknown piece; empty: its name
  split_pattern split = split_pattern::none;
  prefix_rule prefix = prefix_rule::always;
  strip_rule strip = strip_rule::each_bos;
  bool space_mark = false;      ///< U+2581 in a text counts as a space
  bool late_prefix = false;     ///< `later` is cut before the prefix and `space_mark` apply, else after
  added_tokens added{};         ///< cut out of a text first
  added_tokens later{};         ///< cut out of what `added` leaves
  bool marks_in_text = false;   ///< marks that a text names become their ids unless a caller wants otherwise
  std::string chat_template{};  ///< as the file has it; empty: none
};

}  // namespace pesc
