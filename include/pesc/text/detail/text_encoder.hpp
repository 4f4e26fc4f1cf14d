// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "pesc/text/byte_pair_merger.hpp"
#include "pesc/text/tokenizer_parts.hpp"
#include "pesc/text/utf8.hpp"

namespace pesc::detail {

/// \brief One call of `encode`. Every text goes with a guard: a byte for each of its bytes, 1 where marks are text;
/// an empty guard is all 0.
class text_encoder {
 public:
  /// \param byte_ids  the id of each byte, -1 for none
  /// \param marks     whether marks that the text names become their ids
  text_encoder(const tokenizer_parts& parts, const std::array<std::int32_t, 256>& byte_ids, bool marks,
               prefix_rule prefix, std::vector<std::int32_t>& out)
      : parts_{parts},
        byte_ids_{byte_ids},
        marks_{marks},
        prefix_{prefix},
        out_{out},
        merger_{parts.merges} {}

  void add(std::string_view text, std::string_view guard) {
    cut(parts_.added, text, guard, [&, this](std::size_t begin, std::size_t end) {
      between(text.substr(begin, end - begin), part(guard, begin, end), begin == 0);
    });
  }

 private:
  [[nodiscard]] static std::string_view part(std::string_view guard, std::size_t begin, std::size_t end) {
    return guard.empty() ? guard : guard.substr(begin, end - begin);
  }

  template <class UseText>
  void cut(const added_tokens& tokens, std::string_view text, std::string_view guard, UseText&& use_text) {
    const auto accept = [&, this](const added_token& t, std::size_t at) {
      if (!t.special) return true;
      return marks_ && part(guard, at, at + t.text.size()).find('\1') == std::string_view::npos;
    };
    tokens.cut(text, accept, use_text, [&, this](const added_token& t) { out_.push_back(t.id); });
  }

  /// \brief What `added` leaves: the second set of tokens, with prefix and spaces before or after it.
  void between(std::string_view text, std::string_view guard, bool first) {
    if (parts_.late_prefix) {
      cut(parts_.later, text, guard, [&, this](std::size_t begin, std::size_t end) {
        prepare(text.substr(begin, end - begin), {}, first && begin == 0);
        split(text_);
      });
      return;
    }
    prepare(text, guard, first);
    cut(parts_.later, text_, guard_,
        [&, this](std::size_t begin, std::size_t end) { split(text_.substr(begin, end - begin)); });
  }

  void prepare(std::string_view text, std::string_view guard, bool first);
  void split(std::string_view text);
  void start_symbols(std::string_view text);
  void put_bytes(std::string_view bytes);

  const tokenizer_parts& parts_;
  const std::array<std::int32_t, 256>& byte_ids_;
  bool marks_;
  prefix_rule prefix_;
  std::vector<std::int32_t>& out_;
  byte_pair_merger merger_;
  std::vector<std::int32_t> symbols_;
  std::string text_storage_, guard_storage_;
  std::string_view text_, guard_;  ///< what `prepare` made
};

/// \brief Sets `text_` and `guard_`: the text with its prefix and with U+2581 as spaces.
inline void text_encoder::prepare(std::string_view text, std::string_view guard, bool first) {
  constexpr std::string_view mark = "\xE2\x96\x81";
  const bool has_mark = parts_.space_mark && text.find(mark) != std::string_view::npos;
  const bool has_space = text.starts_with(' ') || (parts_.space_mark && text.starts_with(mark));
  const bool prefix = prefix_ == prefix_rule::always ||
                      (prefix_ == prefix_rule::unless_space && !has_space) ||
                      (prefix_ == prefix_rule::start_unless_space && !has_space && first);
  text_ = text;
  guard_ = guard;
  if (!prefix && !has_mark) return;
  text_storage_.assign(prefix ? 1 : 0, ' ');
  guard_storage_.assign(prefix ? 1 : 0, '\0');
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t found = has_mark ? std::min(text.find(mark, i), text.size()) : text.size();
    text_storage_.append(text, i, found - i);
    if (!guard.empty()) guard_storage_.append(guard, i, found - i);
    if (found < text.size()) {
      text_storage_ += ' ';
      if (!guard.empty()) guard_storage_ += guard[found];
    }
    i = found < text.size() ? found + mark.size() : found;
  }
  text_ = text_storage_;
  if (!guard.empty()) guard_ = guard_storage_;
}

inline void text_encoder::split(std::string_view text) {
  for_each_split(parts_.split, text, [&, this](std::string_view piece) {
    if (parts_.ignore_merges) {
      const std::int32_t id = parts_.pieces.find(piece);
      if (id >= 0) return out_.push_back(id);
    }
    start_symbols(piece);
    merger_.append(symbols_, out_);
  });
}

/// \brief One id per byte or character; characters without a piece become their bytes, else unknown.
inline void text_encoder::start_symbols(std::string_view text) {
  symbols_.clear();
  while (!text.empty()) {
    utf8_step step;
    if (!parts_.byte_level) step = utf8_first(text);
    const std::string_view character = text.substr(0, step.length);
    text.remove_prefix(step.length);
    const bool whole = step.what == utf8_step::kind::character;
    const std::int32_t id = whole ? parts_.pieces.find(character) : -1;
    if (id >= 0)
      symbols_.push_back(id);
    else
      put_bytes(character);
  }
}

inline void text_encoder::put_bytes(std::string_view bytes) {
  const auto id_of = [&, this](char c) { return byte_ids_[static_cast<unsigned char>(c)]; };
  bool all = true;
  for (const char c : bytes) all = all && id_of(c) >= 0;
  if (all) {
    for (const char c : bytes) symbols_.push_back(id_of(c));
  } else if (parts_.unk >= 0) {
    if (!parts_.fuse_unk || symbols_.empty() || symbols_.back() != parts_.unk) symbols_.push_back(parts_.unk);
  } else {
    // The tokenizer saw to it that only bytes which are no UTF-8 can be missing.
    for (const char c : {'\xEF', '\xBF', '\xBD'}) symbols_.push_back(id_of(c));
  }
}

}  // namespace pesc::detail
