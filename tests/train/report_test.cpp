// SPDX-License-Identifier: Apache-2.0
#include "pesc/train/report.hpp"

#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <unistd.h>

namespace {

/// Whether every element that is opened is closed, in order.
bool balanced(const std::string& page) {
  std::vector<std::string> open;
  for (std::size_t at = page.find('<'); at != std::string::npos; at = page.find('<', at + 1)) {
    const std::size_t end = page.find('>', at);
    if (end == std::string::npos) return false;
    const std::string tag = page.substr(at + 1, end - at - 1);
    const std::string name = tag.substr(tag[0] == '/', tag.find_first_of(" \n/", 1) - (tag[0] == '/'));
    if (tag[0] == '!' || tag.back() == '/' || name == "meta") continue;
    if (tag[0] == '/') {
      if (open.empty() || open.back() != name) return false;
      open.pop_back();
    } else {
      open.push_back(name);
    }
    if (name == "style" && tag[0] != '/') at = page.find("</style", at) - 1;
  }
  return open.empty();
}

std::size_t count_of(const std::string& text, const std::string& part) {
  std::size_t count = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size()))
    ++count;
  return count;
}

pesc::report example() {
  pesc::report content;
  content.title = "a <b> & \"c\"";
  content.summary = "<script>alert(1)</script>";
  std::vector<double> steps, losses;
  for (int i = 1; i <= 300; ++i) {
    steps.push_back(i);
    losses.push_back(i == 7 ? NAN : 3.0 + 4.0 / i);
  }
  content.charts = {pesc::loss_chart(steps, losses)};
  const std::vector<pesc::index_t> counts{1, 3, 0, 0, 0, 0, 5, 5, 10};
  content.loads = {pesc::load_map("layers", "layer", {"0", "1", "2"}, 3, counts)};
  content.domains = {{"maths", 6.89, 6.87, 3.23, 200, 41234}, {"new", NAN, NAN, NAN, 0, 0, false}};
  content.samples = {{"one", "p<q\n", "before & \x01\xFF", "after </pre>"}};
  content.settings = {{"seed", "1"}, {"<name>", "<value>"}};
  return content;
}

}  // namespace

TEST_SUITE("train/report") {
  TEST_CASE("the page is well formed and needs nothing from outside") {
    const std::string page = pesc::to_html(example());
    CHECK(page.starts_with("<!DOCTYPE html>"));
    CHECK(balanced(page));
    for (const char* part : {"<script", "http:", "https:", "src=", "href=", "@import", "url("}) {
      CAPTURE(part);
      CHECK(page.find(part) == std::string::npos);
    }
    CHECK(count_of(page, "<svg ") == 3);
    CHECK(page.find("prefers-color-scheme: dark") != std::string::npos);
  }

  TEST_CASE("texts from models and users cannot become markup") {
    const std::string page = pesc::to_html(example());
    CHECK(page.find("<b>") == std::string::npos);
    CHECK(page.find("a &lt;b&gt; &amp; &quot;c&quot;") != std::string::npos);
    CHECK(page.find("before &amp; \xEF\xBF\xBD\xEF\xBF\xBD") != std::string::npos);
    CHECK(page.find("after &lt;/pre&gt;") != std::string::npos);
    CHECK(pesc::is_valid_utf8(page));
  }

  TEST_CASE("numbers that are not finite do not reach the pictures") {
    const std::string page = pesc::to_html(example());
    CHECK(page.find("nan") == std::string::npos);
    CHECK(page.find("inf") == std::string::npos);
    CHECK(count_of(page, "<td>\xE2\x80\x93</td>") == 4);
  }

  TEST_CASE("charts with no point, one point and equal points are drawn") {
    for (const auto& values :
         {std::vector<double>{}, {1.0}, {2.0, 2.0}, {0.0, 0.0}, {NAN, INFINITY}, {-1e300, 1e300}}) {
      pesc::line_chart chart{"t", "x", "y", {{"s", values, values}}};
      const std::string svg = to_svg(chart);
      CHECK(balanced(svg));
      CHECK(svg.find("nan") == std::string::npos);
      CHECK(svg.find("inf") == std::string::npos);
    }
    CHECK(balanced(to_svg(pesc::bar_chart{})));
    CHECK(balanced(to_svg(pesc::heat_map{})));
  }

  TEST_CASE("a long run gives a small picture") {
    std::vector<double> steps, losses;
    for (int i = 0; i < 1000000; ++i) {
      steps.push_back(i);
      losses.push_back(std::sin(i));
    }
    CHECK(to_svg(pesc::loss_chart(steps, losses)).size() < 40000);
  }

  TEST_CASE("every finite point lies within the plot") {
    pesc::detail::plot_area plot;
    for (const double v : {-3.0, 8.0, 2.0}) {
      plot.x.add(v);
      plot.y.add(v);
    }
    for (const double v : {-3.0, 8.0, 2.0}) {
      CHECK(plot.at_x(v) >= plot.left);
      CHECK(plot.at_x(v) <= plot.width - plot.right);
      CHECK(plot.at_y(v) >= plot.top);
      CHECK(plot.at_y(v) <= plot.height - plot.bottom);
    }
    CHECK(plot.at_y(8.0) == plot.top);
  }

  TEST_CASE("ticks are round numbers within the range") {
    const auto ticks = pesc::detail::ticks_for(0.0, 8.4, 6);
    CHECK(ticks == std::vector<double>{0.0, 2.0, 4.0, 6.0, 8.0});
    for (const double scale : {1e-6, 0.37, 1.0, 812.0, 1e9}) {
      const auto some = pesc::detail::ticks_for(-scale, 2.1 * scale, 6);
      CHECK(some.size() >= 2);
      CHECK(some.size() <= 8);
      CHECK(some.front() >= -1.0001 * scale);
      CHECK(some.back() <= 2.1001 * scale);
    }
  }

  TEST_CASE("numbers are written for people") {
    CHECK(pesc::detail::readable(0.0005) == "0.0005");
    CHECK(pesc::detail::readable(12.5) == "12.5");
    CHECK(pesc::detail::readable(1804) == "1,804");
    CHECK(pesc::detail::readable(-1234567) == "-1,234,567");
    CHECK(pesc::detail::readable(999) == "999");
    CHECK(pesc::detail::readable(0.0) == "0");
    CHECK(pesc::detail::readable(NAN) == "\xE2\x80\x93");
  }

  TEST_CASE("load becomes shares, and rows without slots stay empty") {
    const std::vector<pesc::index_t> counts{1, 3, 0, 0};
    const pesc::heat_map map = pesc::load_map("t", "layer", {"0", "1"}, 2, counts);
    CHECK(map.values == std::vector<double>{0.25, 0.75, 0.0, 0.0});
    CHECK(map.columns == std::vector<std::string>{"0", "1"});
    CHECK_THROWS_AS(static_cast<void>(pesc::load_map("t", "layer", {"0"}, 2, counts)), pesc::shape_error);
    CHECK_THROWS_AS(static_cast<void>(to_svg(pesc::heat_map{"t", "r", "c", {"0"}, {"0"}, {}})),
                    pesc::shape_error);
    CHECK_THROWS_AS(static_cast<void>(to_svg(pesc::bar_chart{"t", "y", {"0"}, {"0"}, {}})),
                    pesc::shape_error);
  }

  TEST_CASE("the file is written whole or not at all") {
    const auto path =
        std::filesystem::temp_directory_path() / ("pesc_report_" + std::to_string(::getpid()) + ".html");
    pesc::write_report(path.string(), example());
    std::ifstream file{path, std::ios::binary};
    CHECK(std::string{std::istreambuf_iterator<char>{file}, {}} == pesc::to_html(example()));
    CHECK(!std::filesystem::exists(path.string() + ".tmp"));
    std::filesystem::remove(path);
    CHECK_THROWS_AS(pesc::write_report("/no/such/folder/report.html", example()), pesc::io_error);
  }
}
