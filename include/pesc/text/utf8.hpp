// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace pesc {

/// \brief What stands at the start of some bytes: a character, the beginning of one, or neither.
struct utf8_step {
  enum class kind { character, unfinished, invalid };
  kind what = kind::invalid;
  std::size_t length = 1;  ///< bytes of the character, of its beginning, or 1 invalid byte
};

/// \brief Looks at the first UTF-8 character of `text`, which must not be empty.
///
/// Overlong forms, surrogates and values above U+10FFFF are invalid (Unicode, table 3-7).
[[nodiscard]] constexpr utf8_step utf8_first(std::string_view text) {
  using enum utf8_step::kind;
  const auto at = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = at(0);
  if (lead < 0x80) return {character, 1};
  if (lead < 0xC2 || lead > 0xF4) return {invalid, 1};
  const std::size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  // Only the second byte has bounds of its own.
  const unsigned char low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const unsigned char high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  for (std::size_t i = 1; i < length; ++i) {
    if (i == text.size()) return {unfinished, i};
    if (at(i) < (i == 1 ? low : 0x80) || at(i) > (i == 1 ? high : 0xBF)) return {invalid, 1};
  }
  return {character, length};
}

/// \brief The code point of one whole UTF-8 character, as `utf8_first` finds it.
[[nodiscard]] constexpr char32_t code_point_of(std::string_view character) {
  const auto at = [&](std::size_t i) {
    return static_cast<char32_t>(static_cast<unsigned char>(character[i]));
  };
  if (character.size() == 1) return at(0);
  char32_t out = at(0) & (0x7Fu >> character.size());
  for (std::size_t i = 1; i < character.size(); ++i) out = out << 6 | (at(i) & 0x3Fu);
  return out;
}

/// \brief Appends a code point below U+110000 as UTF-8.
inline void append_utf8(std::string& out, char32_t c) {
  const auto put = [&](char32_t byte) { out += static_cast<char>(static_cast<unsigned char>(byte)); };
  if (c < 0x80) return put(c);
  if (c < 0x800) {
    put(0xC0 | c >> 6);
  } else {
    if (c < 0x10000) {
      put(0xE0 | c >> 12);
    } else {
      put(0xF0 | c >> 18);
      put(0x80 | (c >> 12 & 0x3F));
    }
    put(0x80 | (c >> 6 & 0x3F));
  }
  put(0x80 | (c & 0x3F));
}

/// \brief Byte offset of the first place that is not UTF-8; the size of the text when all of it is.
[[nodiscard]] constexpr std::size_t find_invalid_utf8(std::string_view text) {
  std::size_t i = 0;
  while (i < text.size()) {
    const utf8_step step = utf8_first(text.substr(i));
    if (step.what != utf8_step::kind::character) return i;
    i += step.length;
  }
  return i;
}

[[nodiscard]] constexpr bool is_valid_utf8(std::string_view text) {
  return find_invalid_utf8(text) == text.size();
}

/// \brief Makes valid UTF-8 out of bytes that arrive in pieces, as a streamed answer does.
///
/// The beginning of a character is held back until its rest arrives; each byte that cannot be part of one becomes
/// U+FFFD.
class utf8_stream {
 public:
  /// \brief The text that is complete after these bytes.
  [[nodiscard]] std::string push(std::string_view bytes) {
    held_ += bytes;
    return take(false);
  }

  /// \brief What was held back, as U+FFFD, for no more bytes will come.
  [[nodiscard]] std::string finish() { return take(true); }

 private:
  std::string take(bool last) {
    std::string out;
    std::size_t i = 0;
    while (i < held_.size()) {
      const utf8_step step = utf8_first(std::string_view{held_}.substr(i));
      if (step.what == utf8_step::kind::unfinished && !last) break;
      if (step.what == utf8_step::kind::character) {
        out.append(held_, i, step.length);
        i += step.length;
      } else {
        out += "\xEF\xBF\xBD";
        ++i;
      }
    }
    held_.erase(0, i);
    return out;
  }

  std::string held_;
};

}  // namespace pesc
