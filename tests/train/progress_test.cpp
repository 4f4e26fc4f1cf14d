// SPDX-License-Identifier: Apache-2.0
#include "pesc/train/progress.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <string>

#include <doctest/doctest.h>

namespace {

/// A file to write to and its content.
struct capture_file {
  std::FILE* file = std::tmpfile();
  ~capture_file() { std::fclose(file); }
  std::string text() const {
    std::string out;
    std::rewind(file);
    for (int c = std::fgetc(file); c != EOF; c = std::fgetc(file)) out += static_cast<char>(c);
    return out;
  }
};

pesc::progress_options to(const capture_file& file) {
  pesc::progress_options options;
  options.out = file.file;
  return options;
}

}  // namespace

TEST_SUITE("train/progress") {
  TEST_CASE("the line shows step, loss, speed, balance and time left") {
    const pesc::progress_values values{120, 2000, 1.842, 1.91, 412.3, 1.03, 830.0};
    CHECK(pesc::format_progress(values, 80) ==
          "step 120/2000  loss 1.842 (ema 1.91)  412 tok/s  lb 1.03  eta 14m");
  }

  TEST_CASE("what is not known is left out") {
    CHECK(pesc::format_progress({1, 20, 5.0, 5.0, 0.0, 0.0, -1.0}, 80) == "step 1/20  loss 5.000 (ema 5.00)");
  }

  TEST_CASE("the line is never wider than asked for") {
    const pesc::progress_values values{
        123456789, 2000000000, std::numeric_limits<double>::quiet_NaN(), -1e300, 1e18, 1e9, 1e12};
    for (pesc::index_t width = 0; width <= 200; ++width)
      CHECK(static_cast<pesc::index_t>(pesc::format_progress(values, width).size()) <= width);
    CHECK(pesc::format_progress({1, 20, 5.0, 5.0, 9.0, 1.0, 9.0}, 33) == "step 1/20  loss 5.000 (ema 5.00)");
  }

  TEST_CASE("durations are rounded up and short") {
    CHECK(pesc::short_duration(0) == "0s");
    CHECK(pesc::short_duration(41.2) == "42s");
    CHECK(pesc::short_duration(61) == "2m");
    CHECK(pesc::short_duration(3600) == "1h00m");
    CHECK(pesc::short_duration(11100) == "3h05m");
    CHECK(pesc::short_duration(-5) == "0s");
    CHECK(pesc::short_duration(std::numeric_limits<double>::infinity()) == "100000h00m");
  }

  TEST_CASE("the speed is that of the last twenty seconds") {
    pesc::speed_meter meter;
    CHECK(meter.per_second() == 0.0);
    meter.add(100.0, 999999);
    CHECK(meter.per_second() == 0.0);
    for (int i = 1; i <= 300; ++i) meter.add(100.0 + 0.1 * i, 50);
    CHECK(meter.per_second() == doctest::Approx(500.0).epsilon(0.001));
    // Forty seconds later only the new speed counts.
    for (int i = 1; i <= 4000; ++i) meter.add(130.0 + 0.01 * i, 1);
    CHECK(meter.per_second() == doctest::Approx(100.0).epsilon(0.03));
  }

  TEST_CASE("steps longer than the window still have a speed") {
    pesc::speed_meter meter;
    for (int i = 0; i <= 5; ++i) meter.add(60.0 * i, 120);
    CHECK(meter.per_second() == doctest::Approx(2.0));
  }

  TEST_CASE("without a terminal there is a line at the start, one per interval and one at the end") {
    const capture_file file;
    {
      pesc::progress progress{to(file)};
      for (int step = 1; step <= 101; ++step) progress.update_at(0.25 * step, step, 101, 2.0, 100, 1.0);
    }
    const std::string text = file.text();
    CHECK(std::count(text.begin(), text.end(), '\n') == 4);
    CHECK(text.find('\r') == std::string::npos);
    CHECK(text.find('\033') == std::string::npos);
    CHECK(text.starts_with("step 1/101  loss 2.000 (ema 2.00)  lb 1.00\nstep 41/101  "));
    CHECK(text.find("step 41/101  loss 2.000 (ema 2.00)  400 tok/s  lb 1.00  eta 15s\n") !=
          std::string::npos);
    CHECK(text.ends_with("step 101/101  loss 2.000 (ema 2.00)  400 tok/s  lb 1.00  eta 0s\n"));
  }

  TEST_CASE("on a terminal one line is rewritten, in colour only where allowed") {
    for (const bool color : {false, true}) {
      const capture_file file;
      {
        pesc::progress_options options = to(file);
        options.rewrite = true;
        options.color = color;
        options.width = 40;
        pesc::progress progress{options};
        progress.update_at(1.0, 1, 2, 2.0, 100, 1.0);
        progress.update_at(2.0, 2, 2, 1.0, 100, 1.0);
      }
      const std::string text = file.text();
      CHECK(std::count(text.begin(), text.end(), '\n') == 1);
      CHECK(std::count(text.begin(), text.end(), '\r') == 2);
      CHECK((text.find("\033[1m") != std::string::npos) == color);
    }
  }

  TEST_CASE("a loss that is not finite does not spoil the smoothed one") {
    const capture_file file;
    pesc::progress progress{to(file)};
    progress.update_at(1.0, 1, 9, std::numeric_limits<double>::quiet_NaN(), 1, 0.0);
    progress.update_at(2.0, 2, 9, 4.0, 1, 0.0);
    progress.update_at(3.0, 3, 9, std::numeric_limits<double>::quiet_NaN(), 1, 0.0);
    progress.update_at(4.0, 4, 9, 2.0, 1, 0.0);
    CHECK(progress.smooth_loss() == doctest::Approx(0.95 * 4.0 + 0.05 * 2.0));
  }

  TEST_CASE("quiet shows nothing, and a file is no terminal") {
    const capture_file file;
    pesc::progress_options options = pesc::progress_options_for(file.file);
    CHECK(!options.rewrite);
    CHECK(!options.color);
    options.quiet = true;
    {
      pesc::progress progress{options};
      progress.update(1, 1, 1.0, 1, 1.0);
    }
    CHECK(file.text().empty());
  }
}
