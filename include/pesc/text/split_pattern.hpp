// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "pesc/text/character_class.hpp"

namespace pesc {

/// \brief Where a text is cut before pieces join; no piece reaches across a cut.
enum class split_pattern : std::uint8_t {
  none,       ///< nowhere
  spaces,     ///< before every space
  gpt2,       ///< contractions, words, numbers and signs, each with one space before it
  smollm,     ///< every single number character, `gpt2` between them
  llama_bpe,  ///< words with any one sign before them, numbers of up to three digits, lines
};

namespace detail {

/// \brief Names as GGUF files have them, and the regular expressions of tokenizer.json.
struct known_pattern {
  std::string_view name;
  split_pattern pattern;
  std::string_view expression;
};

inline constexpr std::array<known_pattern, 3> known_patterns{{
    {"gpt-2", split_pattern::gpt2,
     R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"},
    {"smollm", split_pattern::smollm, {}},
    {"llama-bpe", split_pattern::llama_bpe,
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
}};

/// \brief Bytes of the characters of one class that `text` starts with, at most `most` of them.
inline std::size_t run_of(character_class what, std::string_view text,
                          std::size_t most = std::string_view::npos) {
  std::size_t at = 0;
  for (; most > 0 && at < text.size(); --most) {
    const classed_character c = first_class(text.substr(at));
    if (c.what != what) break;
    at += c.length;
  }
  return at;
}

/// \brief Bytes of a contraction such as 'll that `text` starts with, 0 where there is none.
inline std::size_t contraction(std::string_view text, bool any_case) {
  if (text.size() < 2 || text[0] != '\'') return 0;
  const auto lower = [&](std::size_t i) {
    const char c = i < text.size() ? text[i] : '\0';
    return any_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  };
  // The long s is a lower case form of S.
  if (any_case && text.substr(1).starts_with("\xC5\xBF")) return 3;
  const char a = lower(1), b = lower(2);
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
  if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return 3;
  return 0;
}

/// \brief White space at the start of `text`: all of it at the end of the text, else all but its last character,
/// which belongs to what follows unless it stands alone.
inline std::size_t space_piece(std::string_view text) {
  std::size_t end = 0, last = 0;
  while (end < text.size()) {
    const classed_character c = first_class(text.substr(end));
    if (c.what != character_class::space) break;
    last = end;
    end += c.length;
  }
  return end == text.size() || last == 0 ? end : last;
}

/// \brief 1 where `text` starts with a space and a character of a class that takes one before it.
inline std::size_t leading_blank(std::string_view text) {
  return text.size() > 1 && text[0] == ' ' && first_class(text.substr(1)).what != character_class::space ? 1
                                                                                                         : 0;
}

inline std::size_t gpt2_piece(std::string_view text) {
  if (const std::size_t n = contraction(text, false)) return n;
  const std::size_t blank = leading_blank(text);
  const character_class what = first_class(text.substr(blank)).what;
  if (what == character_class::space) return space_piece(text);
  return blank + run_of(what, text.substr(blank));
}

inline bool is_line_end(char c) { return c == '\r' || c == '\n'; }

inline std::size_t llama_piece(std::string_view text) {
  using enum character_class;
  if (const std::size_t n = contraction(text, true)) return n;
  const classed_character first = first_class(text);
  if (first.what == letter) return run_of(letter, text);
  if (first.what == number) return run_of(number, text, 3);
  if (!is_line_end(text[0]))
    if (const std::size_t n = run_of(letter, text.substr(first.length))) return first.length + n;
  const std::size_t blank = leading_blank(text);
  if (const std::size_t n = run_of(other, text.substr(blank))) {
    std::size_t end = blank + n;
    while (end < text.size() && is_line_end(text[end])) ++end;
    return end;
  }
  const std::string_view spaces = text.substr(0, run_of(space, text));
  const std::size_t line = spaces.find_last_of("\r\n");
  return line != std::string_view::npos ? line + 1 : space_piece(text);
}

}  // namespace detail

/// \brief Calls `use` with the parts of `text` in their order; together they are the text. Linear time.
template <class Use>
void for_each_split(split_pattern pattern, std::string_view text, Use&& use) {
  const auto repeat = [&](std::string_view part, auto&& length_of) {
    while (!part.empty()) {
      const std::size_t length = length_of(part);
      use(part.substr(0, length));
      part.remove_prefix(length);
    }
  };
  switch (pattern) {
    case split_pattern::none:
      if (!text.empty()) use(text);
      return;
    case split_pattern::spaces:
      return repeat(text, [](std::string_view t) { return std::min(t.find(' ', 1), t.size()); });
    case split_pattern::gpt2:
      return repeat(text, detail::gpt2_piece);
    case split_pattern::llama_bpe:
      return repeat(text, detail::llama_piece);
    case split_pattern::smollm:
      break;
  }
  std::size_t begin = 0;
  for (std::size_t at = 0; at < text.size();) {
    const classed_character c = first_class(text.substr(at));
    if (c.what == character_class::number) {
      repeat(text.substr(begin, at - begin), detail::gpt2_piece);
      use(text.substr(at, c.length));
      begin = at + c.length;
    }
    at += c.length;
  }
  repeat(text.substr(begin), detail::gpt2_piece);
}

/// \brief Names of the byte-level patterns, for messages: "gpt-2, smollm, llama-bpe".
[[nodiscard]] inline std::string split_pattern_names() {
  std::string out;
  for (const auto& p : detail::known_patterns) out += (out.empty() ? "" : ", ") + std::string{p.name};
  return out;
}

/// \brief The pattern that GGUF files call so.
[[nodiscard]] inline std::optional<split_pattern> split_pattern_named(std::string_view name) {
  if (name == "llama3" || name == "llama-v3") name = "llama-bpe";
  for (const auto& p : detail::known_patterns)
    if (p.name == name) return p.pattern;
  return {};
}

/// \brief The regular expression of a pattern; empty where it is made of other steps.
[[nodiscard]] inline std::string_view expression_of(split_pattern pattern) {
  for (const detail::known_pattern& p : detail::known_patterns)
    if (p.pattern == pattern && !p.expression.empty()) return p.expression;
  return {};
}

/// \brief The pattern that a regular expression of a known tokenizer describes.
[[nodiscard]] inline std::optional<split_pattern> split_pattern_of_expression(std::string_view expression) {
  for (const auto& p : detail::known_patterns)
    if (!p.expression.empty() && p.expression == expression) return p.pattern;
  return {};
}

}  // namespace pesc
