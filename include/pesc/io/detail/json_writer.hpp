// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <charconv>
#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>

#include "pesc/io/detail/json_value.hpp"

namespace pesc {
namespace detail {

inline void write_json_string(std::string& out, std::string_view text) {
  constexpr char digits[] = "0123456789abcdef";
  out += '"';
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte >= 0x20) {
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (c == '\r') {
      out += "\\r";
    } else {
      out += "\\u00";
      out += digits[byte >> 4];
      out += digits[byte & 15];
    }
  }
  out += '"';
}

/// \brief The shortest digits that read back to the same double, laid out as Python prints them.
///
/// Readers written in Python compare such texts: a power of ten from -4 to 15 is written out, others get an
/// exponent of two digits or more, whole numbers end in ".0".
inline void write_json_double(std::string& out, double value) {
  if (!std::isfinite(value)) {
    out += "null";
    return;
  }
  char text[40];
  const auto end = std::to_chars(text, text + sizeof text, value, std::chars_format::scientific).ptr;
  const std::string_view all{text, static_cast<std::size_t>(end - text)};
  const std::size_t e = all.find('e');
  int power = 0;
  // The sign of a positive exponent is not part of what from_chars reads.
  std::from_chars(text + e + 1 + (text[e + 1] == '+' ? 1 : 0), end, power);

  std::string digits;
  for (const char c : all.substr(0, e))
    if (c != '-' && c != '.') digits += c;
  if (text[0] == '-') out += '-';
  if (power < -4 || power >= 16) {
    out += all.substr(text[0] == '-' ? 1 : 0);
  } else if (power < 0) {
    out += "0.";
    out.append(static_cast<std::size_t>(-power - 1), '0');
    out += digits;
  } else {
    const auto whole = static_cast<std::size_t>(power) + 1;
    if (digits.size() < whole) digits.append(whole - digits.size(), '0');
    out += digits.substr(0, whole);
    out += '.';
    out += digits.size() > whole ? digits.substr(whole) : "0";
  }
}

struct json_style {
  int indent = -1;  ///< spaces per level, one line when negative
  std::string_view comma = ",";
  std::string_view colon = ":";
};

inline void write_json(std::string& out, const json& value, const json_style& style, int level);

inline void write_json_gap(std::string& out, const json_style& style, int level) {
  if (style.indent < 0) return;
  out += '\n';
  out.append(static_cast<std::size_t>(style.indent * level), ' ');
}

inline void write_json_scalar(std::string& out, const json& value) {
  if (const std::string* text = value.if_string()) return write_json_string(out, *text);
  if (const auto truth = value.to_bool()) return void(out += *truth ? "true" : "false");
  if (const auto number = value.to_int()) return void(out += std::to_string(*number));
  if (const auto number = value.to_uint()) return void(out += std::to_string(*number));
  if (const auto number = value.to_double()) return write_json_double(out, *number);
  out += "null";
}

inline void write_json(std::string& out, const json& value, const json_style& style, int level) {
  if (!value.is_array() && !value.is_object()) return write_json_scalar(out, value);
  const bool list = value.is_array();
  bool first = true;
  const auto next = [&] {
    if (!first) out += style.comma;
    first = false;
    write_json_gap(out, style, level + 1);
  };
  out += list ? '[' : '{';
  for (const json& item : value.items()) {
    next();
    write_json(out, item, style, level + 1);
  }
  for (const json::member& member : value.members()) {
    next();
    write_json_string(out, member.key);
    out += style.colon;
    write_json(out, member.value, style, level + 1);
  }
  if (!first) write_json_gap(out, style, level);
  out += list ? ']' : '}';
}

}  // namespace detail

/// \brief JSON text with the keys in their stored order; one line without spaces when `indent` is negative.
///
/// Numbers read back to the same value. NaN and infinity become `null`, for JSON has no word for them.
[[nodiscard]] inline std::string to_string(const json& value, int indent = -1) {
  std::string out;
  detail::write_json(out, value, {indent, ",", indent < 0 ? ":" : ": "}, 0);
  return out;
}

/// \brief JSON text on one line with ", " and ": ", as Python's default writer has it.
[[nodiscard]] inline std::string to_spaced_string(const json& value) {
  std::string out;
  detail::write_json(out, value, {-1, ", ", ": "}, 0);
  return out;
}

}  // namespace pesc
