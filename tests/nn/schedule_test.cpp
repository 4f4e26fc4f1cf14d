// SPDX-License-Identifier: Apache-2.0
#include "pesc/nn/schedule.hpp"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "support/data.hpp"

namespace {

struct reference_rates {
  std::string header;
  std::vector<double> rates;

  /// The number that the metadata gives as text under `key`.
  double number(const std::string& key, double otherwise) const {
    const std::string quoted = '"' + key + "\":\"";
    const std::size_t at = header.find(quoted);
    return at == std::string::npos ? otherwise : std::stod(header.substr(at + quoted.size()));
  }
};

/// The files hold one tensor of doubles behind their header.
reference_rates read_reference(const std::filesystem::path& path) {
  std::ifstream file{path, std::ios::binary};
  const std::string bytes{std::istreambuf_iterator<char>{file}, {}};
  std::uint64_t header = 0;
  REQUIRE(bytes.size() > 8);
  std::memcpy(&header, bytes.data(), 8);
  reference_rates out{bytes.substr(8, header),
                      std::vector<double>((bytes.size() - 8 - header) / sizeof(double))};
  std::memcpy(out.rates.data(), bytes.data() + 8 + header, out.rates.size() * sizeof(double));
  return out;
}

}  // namespace

TEST_SUITE("nn/schedule") {
  TEST_CASE("the rates are those of the reference to the last bit but one") {
    const struct {
      const char* file;
      pesc::schedule_kind kind;
    } cases[] = {{"constant_with_warmup", pesc::schedule_kind::constant},
                 {"cosine_with_warmup", pesc::schedule_kind::cosine},
                 {"cosine_no_warmup", pesc::schedule_kind::cosine},
                 {"linear_with_warmup", pesc::schedule_kind::linear}};
    for (const auto& c : cases) {
      CAPTURE(c.file);
      const auto path = support::test_data("golden/lr_schedule") / (std::string{c.file} + ".safetensors");
      const reference_rates reference = read_reference(path);
      pesc::schedule schedule;
      schedule.kind = c.kind;
      schedule.base_rate = reference.number("base_lr", 0);
      schedule.warmup = static_cast<pesc::index_t>(reference.number("warmup", 0));
      schedule.total = static_cast<pesc::index_t>(reference.number("total", 1));
      schedule.cycles = reference.number("num_cycles", 0.5);
      schedule.check();
      REQUIRE(reference.rates.size() == 48);
      for (std::size_t i = 0; i < reference.rates.size(); ++i) {
        CAPTURE(i);
        CHECK(std::abs(schedule(static_cast<pesc::index_t>(i)) - reference.rates[i]) <=
              1e-15 * schedule.base_rate);
      }
    }
  }

  TEST_CASE("the warm-up rises in a straight line from zero and ends at the base rate") {
    const pesc::schedule schedule{pesc::schedule_kind::cosine, 2e-3, 20, 300, 0.1};
    CHECK(schedule(0) == 0.0);
    CHECK(schedule(10) == doctest::Approx(1e-3).epsilon(1e-14));
    CHECK(schedule(20) == 2e-3);
  }

  TEST_CASE("cosine and line end at the final fraction") {
    for (const auto kind : {pesc::schedule_kind::cosine, pesc::schedule_kind::linear}) {
      const pesc::schedule schedule{kind, 1e-3, 20, 300, 0.1};
      CHECK(schedule(300) == doctest::Approx(1e-4).epsilon(1e-12));
      CHECK(schedule(160) == doctest::Approx(0.55e-3).epsilon(1e-12));
      for (pesc::index_t step = 20; step < 300; ++step) CHECK(schedule(step + 1) < schedule(step));
    }
  }

  TEST_CASE("numbers out of range are refused with the number") {
    CHECK_THROWS_WITH_AS((pesc::schedule{pesc::schedule_kind::linear, -1.0}.check()),
                         "learning rate is -1, expected above 0", pesc::shape_error);
    CHECK_THROWS_AS((pesc::schedule{pesc::schedule_kind::linear, 1.0, -1}.check()), pesc::shape_error);
    CHECK_THROWS_AS((pesc::schedule{pesc::schedule_kind::linear, 1.0, 0, 0}.check()), pesc::shape_error);
    CHECK_THROWS_AS((pesc::schedule{pesc::schedule_kind::linear, 1.0, 0, 1, 1.5}.check()), pesc::shape_error);
    CHECK_THROWS_AS((pesc::schedule{pesc::schedule_kind::cosine, 1.0, 0, 1, 0.0, -1.0}.check()),
                    pesc::shape_error);
  }
}
