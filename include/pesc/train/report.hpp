// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "pesc/core/error.hpp"
#include "pesc/train/detail/report_style.hpp"
#include "pesc/train/svg.hpp"

namespace pesc {

/// \brief Held-out losses of one domain, nats per target token; NaN = not measured.
struct report_domain {
  std::string name;
  double dense = NAN;    ///< the model that was crafted
  double crafted = NAN;  ///< before tuning
  double tuned = NAN;
  index_t records = 0;
  index_t tokens = 0;   ///< target tokens that the losses are means of
  bool trained = true;  ///< false for a domain that only measures what was kept
};

/// \brief What the model writes after a prompt, before and after tuning.
struct report_sample {
  std::string title;
  std::string prompt;
  std::string before;
  std::string after;
};

/// \brief Everything a report shows; what is empty is left out.
struct report {
  std::string title;
  std::string summary;                                        ///< a sentence or two under the title
  std::vector<std::pair<std::string, std::string>> settings;  ///< names and values of the run
  std::vector<report_domain> domains;
  std::vector<line_chart> charts;
  std::vector<heat_map> loads;
  std::vector<report_sample> samples;
};

/// \brief Chart of the training loss: the steps as they were and their running mean.
[[nodiscard]] inline line_chart loss_chart(std::vector<double> steps, std::vector<double> losses) {
  std::vector<double> smooth;
  double mean = 0.0, weight = 0.0;
  for (const double loss : losses) {
    // Dividing by the summed weights removes the pull of the first value.
    if (std::isfinite(loss)) {
      mean = 0.9 * mean + 0.1 * loss;
      weight = 0.9 * weight + 0.1;
    }
    smooth.push_back(weight > 0 ? mean / weight : NAN);
  }
  line_chart chart{"Training loss", "step", "nats per target token", {}};
  chart.series.push_back({"each step", steps, std::move(losses), true});
  chart.series.push_back({"running mean", std::move(steps), std::move(smooth), false});
  return chart;
}

/// \brief Heat map of expert load; each row of counts becomes shares that sum to 1.
/// \param counts  slots per row and expert, row by row
[[nodiscard]] inline heat_map load_map(std::string title, std::string row_label,
                                       std::vector<std::string> rows, index_t experts,
                                       std::span<const index_t> counts) {
  PESC_EXPECTS(static_cast<index_t>(counts.size()) == static_cast<index_t>(rows.size()) * experts, "load of ",
               rows.size(), " rows and ", experts, " experts has ", counts.size(), " counts");
  heat_map map{std::move(title), std::move(row_label), "expert", std::move(rows), {}, {}};
  for (index_t e = 0; e < experts; ++e) map.columns.push_back(std::to_string(e));
  for (std::size_t r = 0; r < map.rows.size(); ++r) {
    const auto row = counts.subspan(r * static_cast<std::size_t>(experts), static_cast<std::size_t>(experts));
    double sum = 0.0;
    for (const index_t count : row) sum += static_cast<double>(count);
    for (const index_t count : row) map.values.push_back(sum > 0 ? static_cast<double>(count) / sum : 0.0);
  }
  return map;
}

namespace detail {

inline std::string loss_cell(double value) {
  return concat("<td>", std::isfinite(value) ? fixed(value, 3) : "\xE2\x80\x93", "</td>");
}

inline std::string domain_section(const std::vector<report_domain>& domains) {
  bar_chart bars{"Held-out loss by domain", "nats per target token", {}, {"dense", "crafted", "tuned"}, {}};
  std::string table =
      "<div class=\"scroll\"><table><tr><th>domain</th><th>dense</th><th>crafted</th><th>tuned</th><th>tuned "
      "\xE2\x88\x92 crafted</th>"
      "<th>records</th><th>target tokens</th></tr>\n";
  for (const report_domain& domain : domains) {
    const double change = domain.tuned - domain.crafted;
    table += concat("<tr><td>", html(domain.name),
                    domain.trained ? "" : " <span class=\"soft\">(not trained)</span>", "</td>",
                    loss_cell(domain.dense), loss_cell(domain.crafted), loss_cell(domain.tuned));
    if (std::isfinite(change))
      table += concat("<td class=\"", change < 0 ? "good" : "bad", "\">", change < 0 ? "\xE2\x88\x92" : "+",
                      fixed(std::abs(change), 3), "</td>");
    else
      table += loss_cell(change);
    table += concat("<td>", readable(static_cast<double>(domain.records)), "</td><td>",
                    readable(static_cast<double>(domain.tokens)), "</td></tr>\n");
    bars.groups.push_back(domain.name);
    bars.values.insert(bars.values.end(), {domain.dense, domain.crafted, domain.tuned});
  }
  return concat(
      "<h2>Held-out loss by domain</h2>\n<p class=\"soft\">Lower is better. Dense: the model as it was; "
      "crafted: turned into a mixture of"
      " experts, not yet trained; tuned: after this run.</p>\n<div class=\"grid2\"><div>",
      table, "</table></div></div>\n<div>", to_svg(bars), "</div></div>\n");
}

inline std::string sample_section(const std::vector<report_sample>& samples) {
  std::string out = "<h2>Samples</h2>\n";
  for (const report_sample& sample : samples) {
    out += concat("<div class=\"sample\"><h3>", html(sample.title), "</h3>\n<div class=\"grid2\">\n");
    for (const auto& [name, text] : {std::pair{"before", &sample.before}, std::pair{"after", &sample.after}})
      out += concat("<div><p class=\"soft\">", name, "</p><pre><span class=\"prompt\">", html(sample.prompt),
                    "</span>", html(*text), "</pre></div>\n");
    out += "</div></div>\n";
  }
  return out;
}

}  // namespace detail

/// \brief The report as one HTML page that needs nothing else: no script, no file, no network.
[[nodiscard]] inline std::string to_html(const report& content) {
  std::string out = detail::concat(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>",
      detail::html(content.title), "</title>\n<style>", detail::report_style,
      "</style>\n</head>\n<body>\n<h1>", detail::html(content.title), "</h1>\n<p>",
      detail::html(content.summary), "</p>\n");
  if (!content.domains.empty()) out += detail::domain_section(content.domains);
  if (!content.charts.empty()) {
    out += "<h2>Training</h2>\n<div class=\"grid2\">\n";
    for (const line_chart& chart : content.charts)
      out += detail::concat("<div><h3>", detail::html(chart.title), "</h3>\n", to_svg(chart), "</div>\n");
    out += "</div>\n";
  }
  if (!content.loads.empty()) {
    out +=
        "<h2>Expert load</h2>\n<p class=\"soft\">Share of a row's slots that each expert got, in per "
        "cent.</p>\n<div class=\"grid2\">\n";
    for (const heat_map& map : content.loads)
      out += detail::concat("<div><h3>", detail::html(map.title), "</h3>\n", to_svg(map), "</div>\n");
    out += "</div>\n";
  }
  if (!content.samples.empty()) out += detail::sample_section(content.samples);
  if (!content.settings.empty()) {
    out += "<h2>Run</h2>\n<div class=\"scroll\"><table class=\"names\">\n";
    for (const auto& [name, value] : content.settings)
      out += detail::concat("<tr><td class=\"soft\">", detail::html(name), "</td><td>", detail::html(value),
                            "</td></tr>\n");
    out += "</table></div>\n";
  }
  return out + "</body>\n</html>\n";
}

/// \brief Writes the report to a file, whole or not at all.
/// \throws io_error
inline void write_report(const std::string& path, const report& content) {
  const std::string page = to_html(content);
  const std::string copy = path + ".tmp";
  std::FILE* file = std::fopen(copy.c_str(), "wb");
  bool good = file != nullptr;
  if (good) {
    good = std::fwrite(page.data(), 1, page.size(), file) == page.size();
    good = std::fclose(file) == 0 && good;
    good = good && std::rename(copy.c_str(), path.c_str()) == 0;
  }
  if (good) return;
  const std::string why = std::strerror(errno);
  std::remove(copy.c_str());
  detail::raise<io_error>(detail::concat(path, ": cannot be written (", why, ")"));
}

}  // namespace pesc
