// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "pesc/core/error.hpp"
#include "pesc/core/types.hpp"
#include "pesc/text/utf8.hpp"

// What the pictures of a report are put together from: escaped text, numbers, ticks, axes, legends.

namespace pesc::detail {

/// \brief Text for a page: markup escaped, what is not a printable character as U+FFFD.
inline std::string html(std::string_view text) {
  utf8_stream stream;
  std::string out;
  for (const char c : stream.push(text) + stream.finish()) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '"')
      out += "&quot;";
    else if (c == '\'')
      out += "&#39;";
    else if ((byte < 0x20 && c != '\n' && c != '\t') || byte == 0x7F)
      out += "\xEF\xBF\xBD";
    else
      out += c;
  }
  return out;
}

inline std::string fixed(double value, int decimals) {
  char text[400];
  const auto end = std::to_chars(text, text + sizeof text, value, std::chars_format::fixed, decimals);
  return {text, end.ptr};
}

/// \brief A number as people write it: 0.0005, 12.5, 1,804, 5e-07.
inline std::string readable(double value) {
  if (!std::isfinite(value)) return "\xE2\x80\x93";
  const double size = std::abs(value);
  if (size < 1e15 && (size >= 9999.5 || (size >= 1000 && value == std::floor(value)))) {
    std::string digits = fixed(value, 0);
    const index_t first = value < 0 ? 1 : 0;
    for (index_t at = static_cast<index_t>(digits.size()) - 3; at > first; at -= 3)
      digits.insert(static_cast<std::size_t>(at), 1, ',');
    return digits;
  }
  char text[64];
  const auto end = std::to_chars(text, text + sizeof text, value, std::chars_format::general, 4);
  return {text, end.ptr};
}

/// \brief Round numbers that cover a range, at most about `count` of them.
inline std::vector<double> ticks_for(double low, double high, int count) {
  const double raw = std::max((high - low) / count, std::abs(high) * 1e-9 + 1e-30);
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  const double step = power * (raw <= power ? 1.0 : raw <= 2 * power ? 2.0 : raw <= 5 * power ? 5.0 : 10.0);
  std::vector<double> ticks;
  for (double k = std::ceil(low / step - 1e-9); k * step <= high + 1e-9 * step && ticks.size() < 64; ++k)
    ticks.push_back(k * step + 0.0);  // no negative zero
  return ticks;
}

/// \brief Smallest and largest finite value; widened where they are equal.
struct value_range {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();

  void add(double value) {
    if (!std::isfinite(value)) return;
    low = std::min(low, value);
    high = std::max(high, value);
  }
  void settle() {
    if (!(low <= high)) low = 0.0, high = 1.0;
    const double gap = high > low ? 0.0 : std::max(std::abs(high) * 0.1, 0.5);
    low -= gap;
    high += gap;
  }
};

inline std::string text_at(double x, double y, std::string_view style, std::string_view text,
                           std::string_view more = {}) {
  return concat("<text class=\"", style, "\" x=\"", fixed(x, 1), "\" y=\"", fixed(y, 1), "\"", more, ">",
                html(text), "</text>\n");
}

inline std::string line_between(double x1, double y1, double x2, double y2, std::string_view style) {
  return concat("<line class=\"", style, "\" x1=\"", fixed(x1, 1), "\" y1=\"", fixed(y1, 1), "\" x2=\"",
                fixed(x2, 1), "\" y2=\"", fixed(y2, 1), "\"/>\n");
}

inline std::string svg_begin(double width, double height, std::string_view title) {
  return concat("<svg viewBox=\"0 0 ", fixed(width, 0), " ", fixed(height, 0),
                "\" style=\"max-width:", fixed(width, 0), "px\" role=\"img\" aria-label=\"", html(title),
                "\">\n");
}

/// \brief The area between the axes of a chart.
struct plot_area {
  double width = 640, height = 300;
  double left = 64, right = 14, top = 30, bottom = 48;
  value_range x{}, y{};

  [[nodiscard]] double at_x(double value) const {
    return left + (value - x.low) / (x.high - x.low) * (width - left - right);
  }
  [[nodiscard]] double at_y(double value) const {
    return height - bottom - (value - y.low) / (y.high - y.low) * (height - top - bottom);
  }

  /// \brief Moves the left border so that the longest number of the vertical axis fits.
  void fit_left() {
    std::size_t longest = 1;
    for (const double tick : ticks_for(y.low, y.high, 6)) longest = std::max(longest, readable(tick).size());
    left = 40 + 7.2 * static_cast<double>(longest);
  }

  [[nodiscard]] std::string y_axis(std::string_view label) const {
    std::string out;
    for (const double tick : ticks_for(y.low, y.high, 6)) {
      out += line_between(left, at_y(tick), width - right, at_y(tick), "grid");
      out += text_at(left - 8, at_y(tick) + 4, "tick end", readable(tick));
    }
    out += line_between(left, top, left, height - bottom, "axis");
    const double middle = (top + height - bottom) / 2;
    out += text_at(16, middle, "label mid", label,
                   concat(" transform=\"rotate(-90 16 ", fixed(middle, 1), ")\""));
    return out;
  }

  [[nodiscard]] std::string x_axis(std::string_view label) const {
    std::string out = line_between(left, height - bottom, width - right, height - bottom, "axis");
    for (const double tick : ticks_for(x.low, x.high, 8)) {
      out += line_between(at_x(tick), height - bottom, at_x(tick), height - bottom + 5, "axis");
      out += text_at(at_x(tick), height - bottom + 19, "tick mid", readable(tick));
    }
    return out + text_at((left + width - right) / 2, height - 8, "label mid", label);
  }
};

/// \brief Swatches and names in a row above a chart.
inline std::string legend_at(double x, double y, const std::vector<std::string>& names,
                             const std::vector<std::string>& styles) {
  std::string out;
  for (std::size_t i = 0; i < names.size(); ++i) {
    out += concat("<rect class=\"", styles[i], "\" x=\"", fixed(x, 1), "\" y=\"", fixed(y - 9, 1),
                  "\" width=\"14\" height=\"9\"/>\n");
    out += text_at(x + 19, y, "tick", names[i]);
    x += 34 + 6.6 * static_cast<double>(names[i].size());
  }
  return out;
}

}  // namespace pesc::detail
