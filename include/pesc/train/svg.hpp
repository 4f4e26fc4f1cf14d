// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>
#include <vector>

#include "pesc/core/error.hpp"
#include "pesc/core/types.hpp"
#include "pesc/train/detail/svg_parts.hpp"

// Pictures for reports: text of SVG elements whose colours come from the style sheet of the page, so that one
// picture serves light and dark screens. Numbers are written without the user's locale, which would break the
// paths.

namespace pesc {

/// \brief A line of a chart; points that are not finite are left out.
struct chart_series {
  std::string name;
  std::vector<double> x;
  std::vector<double> y;
  bool faint = false;  ///< drawn thin and pale, for the raw values behind a smoothed line
};

/// \brief A chart of lines over one axis.
struct line_chart {
  std::string title;
  std::string x_label;
  std::string y_label;
  std::vector<chart_series> series;
};

/// \brief A table of values drawn as colours; a row sums to 1 when it holds shares.
struct heat_map {
  std::string title;
  std::string row_label;
  std::string column_label;
  std::vector<std::string> rows;
  std::vector<std::string> columns;
  std::vector<double> values;  ///< row by row
};

/// \brief Bars in groups, one group per row and one bar in it per column.
struct bar_chart {
  std::string title;
  std::string y_label;
  std::vector<std::string> groups;
  std::vector<std::string> bars;
  std::vector<double> values;  ///< group by group
};

namespace detail {

/// \brief One point per pixel column at most: the mean of the points that fall on it.
inline std::string path_of(const chart_series& series, const plot_area& plot) {
  std::string out;
  const std::size_t count = std::min(series.x.size(), series.y.size());
  double column = -1.0, sum_x = 0.0, sum_y = 0.0;
  int points = 0;
  const auto flush = [&] {
    if (points == 0) return;
    out += concat(out.empty() ? "M" : "L", fixed(sum_x / points, 1), " ", fixed(sum_y / points, 1));
    sum_x = sum_y = 0.0;
    points = 0;
  };
  for (std::size_t i = 0; i < count; ++i) {
    if (!std::isfinite(series.x[i]) || !std::isfinite(series.y[i])) continue;
    const double x = plot.at_x(series.x[i]);
    if (std::floor(x) != column) flush();
    column = std::floor(x);
    sum_x += x;
    sum_y += plot.at_y(series.y[i]);
    ++points;
  }
  flush();
  return out;
}

}  // namespace detail

/// \brief SVG of a line chart.
[[nodiscard]] inline std::string to_svg(const line_chart& chart) {
  detail::plot_area plot;
  std::vector<std::string> names, styles;
  std::size_t strong = 0;
  for (const chart_series& series : chart.series) {
    for (const double x : series.x) plot.x.add(x);
    for (const double y : series.y) plot.y.add(y);
    names.push_back(series.name);
    constexpr std::string_view colors[] = {"c2", "c1", "c3", "c0"};
    styles.push_back(series.faint ? "c0 faint" : std::string{colors[strong++ % 4]});
  }
  plot.x.settle();
  plot.y.settle();
  const double room = 0.04 * (plot.y.high - plot.y.low);
  if (plot.y.low < 0 || plot.y.low > room)
    plot.y.low -= room;
  else
    plot.y.low = 0;
  plot.y.high += room;
  plot.fit_left();
  std::string out = detail::svg_begin(plot.width, plot.height, chart.title);
  out += plot.y_axis(chart.y_label) + plot.x_axis(chart.x_label);
  for (std::size_t i = 0; i < chart.series.size(); ++i)
    out += detail::concat("<path class=\"line ", styles[i], "\" d=\"", detail::path_of(chart.series[i], plot),
                          "\"/>\n");
  if (names.size() > 1) out += detail::legend_at(plot.left + 8, 18, names, styles);
  return out + "</svg>\n";
}

/// \brief SVG of grouped bars, which start at zero and carry their values.
[[nodiscard]] inline std::string to_svg(const bar_chart& chart) {
  PESC_EXPECTS(chart.values.size() == chart.groups.size() * chart.bars.size(), "bar chart of ",
               chart.groups.size(), " groups of ", chart.bars.size(), " bars has ", chart.values.size(),
               " values");
  detail::plot_area plot;
  plot.x = {0.0, static_cast<double>(std::max<std::size_t>(chart.groups.size(), 1))};
  plot.y.add(0.0);
  for (const double value : chart.values) plot.y.add(value);
  plot.y.settle();
  plot.y.low = 0.0;
  plot.y.high *= 1.08;
  plot.fit_left();
  std::string out = detail::svg_begin(plot.width, plot.height, chart.title) + plot.y_axis(chart.y_label);
  out += detail::line_between(plot.left, plot.at_y(0), plot.width - plot.right, plot.at_y(0), "axis");
  std::vector<std::string> styles;
  for (std::size_t b = 0; b < chart.bars.size(); ++b) styles.push_back(detail::concat("c", index_t(b % 4)));
  const double step = 0.8 / static_cast<double>(std::max<std::size_t>(chart.bars.size(), 1));
  for (std::size_t g = 0; g < chart.groups.size(); ++g) {
    const double room = (plot.width - plot.left - plot.right) / static_cast<double>(chart.groups.size());
    std::string name = chart.groups[g];
    const auto fits = static_cast<std::size_t>(room / 6.6);
    if (name.size() > fits) name = name.substr(0, fits) + ".";
    out += detail::text_at(plot.at_x(static_cast<double>(g) + 0.5), plot.height - plot.bottom + 19,
                           "tick mid", name);
    for (std::size_t b = 0; b < chart.bars.size(); ++b) {
      const double value = chart.values[g * chart.bars.size() + b];
      if (!std::isfinite(value) || value < 0) continue;
      const double begin = plot.at_x(static_cast<double>(g) + 0.1 + step * static_cast<double>(b));
      const double end = plot.at_x(static_cast<double>(g) + 0.1 + step * static_cast<double>(b + 1)) - 2;
      out += detail::concat("<rect class=\"", styles[b], "\" x=\"", detail::fixed(begin, 1), "\" y=\"",
                            detail::fixed(plot.at_y(value), 1), "\" width=\"", detail::fixed(end - begin, 1),
                            "\" height=\"", detail::fixed(plot.at_y(0) - plot.at_y(value), 1), "\"><title>",
                            detail::html(chart.groups[g]), ", ", detail::html(chart.bars[b]), ": ",
                            detail::readable(value), "</title></rect>\n");
      if (end - begin >= 22)
        out += detail::text_at((begin + end) / 2, plot.at_y(value) - 4, "small mid", detail::fixed(value, 2));
    }
  }
  return out + detail::legend_at(plot.left + 8, 18, chart.bars, styles) + "</svg>\n";
}

/// \brief SVG of a heat map: shares in per cent, from the page's colour (0) to the full colour (the largest
/// value).
[[nodiscard]] inline std::string to_svg(const heat_map& map) {
  PESC_EXPECTS(map.values.size() == map.rows.size() * map.columns.size(), "heat map of ", map.rows.size(),
               " x ", map.columns.size(), " has ", map.values.size(), " values");
  std::size_t longest = 1;
  for (const std::string& row : map.rows) longest = std::max(longest, row.size());
  const double left = 34 + 7.0 * static_cast<double>(longest), top = 48, cell_h = 28;
  const double cell_w =
      std::clamp(560.0 / static_cast<double>(std::max<std::size_t>(map.columns.size(), 1)), 14.0, 58.0);
  const double right = left + cell_w * static_cast<double>(map.columns.size());
  const double bottom = top + cell_h * static_cast<double>(map.rows.size());
  detail::value_range range;
  range.add(0.0);
  for (const double value : map.values) range.add(value);
  const double most = range.high > 0 ? range.high : 1.0;

  std::string out = detail::svg_begin(std::max(right + 14, 360.0), bottom + 46, map.title);
  out += detail::text_at((left + right) / 2, 16, "label mid", map.column_label);
  out += detail::text_at(
      14, (top + bottom) / 2, "label mid", map.row_label,
      detail::concat(" transform=\"rotate(-90 14 ", detail::fixed((top + bottom) / 2, 1), ")\""));
  const std::size_t every = cell_w < 24 ? 4 : 1;
  for (std::size_t c = 0; c < map.columns.size(); c += every)
    out +=
        detail::text_at(left + cell_w * (static_cast<double>(c) + 0.5), top - 8, "tick mid", map.columns[c]);
  for (std::size_t r = 0; r < map.rows.size(); ++r) {
    const double y = top + cell_h * static_cast<double>(r);
    out += detail::text_at(left - 8, y + cell_h / 2 + 4, "tick end", map.rows[r]);
    for (std::size_t c = 0; c < map.columns.size(); ++c) {
      const double value = map.values[r * map.columns.size() + c];
      const double x = left + cell_w * static_cast<double>(c);
      const double share = std::isfinite(value) ? std::clamp(value / most, 0.0, 1.0) : 0.0;
      const std::string percent = std::isfinite(value) ? detail::fixed(100 * value, 1) : "\xE2\x80\x93";
      out += detail::concat("<rect class=\"heat\" fill-opacity=\"", detail::fixed(share, 3), "\" x=\"",
                            detail::fixed(x + 1, 1), "\" y=\"", detail::fixed(y + 1, 1), "\" width=\"",
                            detail::fixed(cell_w - 2, 1), "\" height=\"", detail::fixed(cell_h - 2, 1),
                            "\"><title>", detail::html(map.row_label), " ", detail::html(map.rows[r]), ", ",
                            detail::html(map.column_label), " ", detail::html(map.columns[c]), ": ", percent,
                            " %</title></rect>\n");
      if (cell_w >= 34)
        out += detail::text_at(x + cell_w / 2, y + cell_h / 2 + 4,
                               share > 0.65 ? "small mid over" : "small mid", percent);
    }
  }
  constexpr int steps = 24;
  for (int i = 0; i < steps; ++i)
    out += detail::concat("<rect class=\"heat plain\" fill-opacity=\"", detail::fixed((i + 0.5) / steps, 3),
                          "\" x=\"", detail::fixed(left + 28 + 5 * i, 1), "\" y=\"",
                          detail::fixed(bottom + 18, 1), "\" width=\"5\" height=\"12\"/>\n");
  out += detail::text_at(left + 22, bottom + 28, "tick end", "0 %");
  out += detail::text_at(left + 28 + 5 * steps + 6, bottom + 28, "tick",
                         detail::fixed(100 * most, 1) + " % of the slots of a row");
  return out + "</svg>\n";
}

}  // namespace pesc
