// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include <utf8proc.h>

#include "pesc/text/utf8.hpp"

namespace pesc {

/// \brief What the splitting patterns of tokenizers tell apart: Unicode L, Unicode N, White_Space, all else.
enum class character_class : std::uint8_t { letter, number, space, other };

/// \brief Class of a code point; values that are none are `other`.
[[nodiscard]] inline character_class class_of(char32_t c) {
  using enum character_class;
  if (c < 0x80) {
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) return letter;
    if (c >= '0' && c <= '9') return number;
    return c == ' ' || (c >= 0x09 && c <= 0x0D) ? space : other;
  }
  if (c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
      c == 0x202F || c == 0x205F || c == 0x3000)
    return space;
  if (c > 0x10FFFF) return other;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return letter;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return number;
    default:
      return other;
  }
}

/// \brief One character of a text, or one byte that is part of none (of class `other`).
struct classed_character {
  character_class what = character_class::other;
  std::size_t length = 1;
};

/// \brief Class and bytes of what stands at the start of `text`, which must not be empty.
[[nodiscard]] inline classed_character first_class(std::string_view text) {
  const utf8_step step = utf8_first(text);
  if (step.what != utf8_step::kind::character) return {};
  return {class_of(code_point_of(text.substr(0, step.length))), step.length};
}

/// \brief Bytes of white space at the end of `text`.
[[nodiscard]] inline std::size_t trailing_space(std::string_view text) {
  std::size_t end = text.size();
  while (end > 0) {
    std::size_t begin = end - 1;
    while (begin > 0 && end - begin < 4 && (static_cast<unsigned char>(text[begin]) & 0xC0u) == 0x80u)
      --begin;
    const classed_character c = first_class(text.substr(begin, end - begin));
    if (c.what != character_class::space || c.length != end - begin) break;
    end = begin;
  }
  return text.size() - end;
}

/// \brief Bytes of white space at the start of `text`.
[[nodiscard]] inline std::size_t leading_space(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    const classed_character c = first_class(text.substr(at));
    if (c.what != character_class::space) break;
    at += c.length;
  }
  return at;
}

}  // namespace pesc
