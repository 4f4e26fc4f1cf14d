// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace pesc {
namespace detail {

inline void append_escaped(std::string& out, char c) {
  constexpr char digits[] = "0123456789abcdef";
  const auto byte = static_cast<unsigned char>(c);
  if (c == '"' || c == '\\') {
    out += '\\';
    out += c;
  } else if (c == '\n') {
    out += "\\n";
  } else if (byte < 0x20 || byte == 0x7F) {
    out += "\\x";
    out += digits[byte >> 4];
    out += digits[byte & 15];
  } else {
    out += c;
  }
}

}  // namespace detail

/// \brief `text` as one line for a message: control characters escaped, cut behind `limit` bytes of input.
[[nodiscard]] inline std::string one_line(std::string_view text, std::size_t limit = 160) {
  std::string out;
  const bool cut = text.size() > limit;
  if (cut) {
    // A cut inside a UTF-8 sequence would put broken text on the terminal.
    while (limit > 0 && (static_cast<unsigned char>(text[limit]) & 0xC0u) == 0x80u) --limit;
    text = text.substr(0, limit);
  }
  for (const char c : text) detail::append_escaped(out, c);
  if (cut) out += "...";
  return out;
}

/// \brief A name from a file in quotes, escaped and cut at 80 bytes, for messages.
[[nodiscard]] inline std::string in_quotes(std::string_view name) { return '"' + one_line(name, 80) + '"'; }

}  // namespace pesc
