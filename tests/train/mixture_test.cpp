// SPDX-License-Identifier: Apache-2.0
#include "pesc/train/mixture.hpp"

#include <algorithm>
#include <limits>
#include <vector>

#include <doctest/doctest.h>

namespace {

std::vector<pesc::mixture::pick> draw(pesc::mixture& order, int count) {
  std::vector<pesc::mixture::pick> out;
  for (int i = 0; i < count; ++i) out.push_back(order.next());
  return out;
}

}  // namespace

TEST_SUITE("train/mixture") {
  TEST_CASE("every record of a data set comes once before any comes again, in another order each time") {
    pesc::mixture order{{{37, 1.0}}, 5};
    std::vector<std::vector<pesc::index_t>> rounds;
    for (int round = 0; round < 4; ++round) {
      std::vector<pesc::index_t> records;
      for (const auto& pick : draw(order, 37)) records.push_back(pick.record);
      rounds.push_back(records);
      std::sort(records.begin(), records.end());
      for (pesc::index_t i = 0; i < 37; ++i) CHECK(records[static_cast<std::size_t>(i)] == i);
    }
    CHECK(rounds[0] != rounds[1]);
    CHECK(rounds[1] != rounds[2]);
    CHECK(rounds[0] != rounds[2]);
  }

  TEST_CASE("the first places of the shuffle are uniform") {
    // 2000 seeds, 8 records: each expects 250 first places, standard deviation 14.8.
    std::vector<int> first(8);
    for (std::uint64_t seed = 0; seed < 2000; ++seed)
      ++first[static_cast<std::size_t>(pesc::mixture{{{8, 1.0}}, seed}.next().record)];
    for (const int count : first) CHECK(std::abs(count - 250) < 75);
  }

  TEST_CASE("data sets are drawn in proportion to their weights, whatever the scale of the weights") {
    pesc::mixture order{{{1000, 3.0}, {10, 7.0}, {50, 10.0}}, 1};
    CHECK(order.share(0) == doctest::Approx(0.15));
    CHECK(order.share(1) == doctest::Approx(0.35));
    CHECK(order.share(2) == doctest::Approx(0.5));
    int counts[3] = {};
    for (const auto& pick : draw(order, 20000)) ++counts[pick.source];
    // Standard deviations: 50, 67, 71.
    CHECK(std::abs(counts[0] - 3000) < 300);
    CHECK(std::abs(counts[1] - 7000) < 400);
    CHECK(std::abs(counts[2] - 10000) < 400);
  }

  TEST_CASE("the same seed gives the same stream, another seed another one") {
    pesc::mixture a{{{100, 1.0}, {30, 2.0}}, 7};
    pesc::mixture b{{{100, 1.0}, {30, 2.0}}, 7};
    pesc::mixture c{{{100, 1.0}, {30, 2.0}}, 8};
    pesc::mixture d{{{100, 1.0}, {30, 2.0}}, std::uint64_t{7} | std::uint64_t{1} << 40};
    const auto stream = draw(a, 300);
    CHECK(stream == draw(b, 300));
    CHECK(stream != draw(c, 300));
    CHECK(stream != draw(d, 300));
  }

  TEST_CASE("a restored mixture goes on exactly, from any place and over the end of a round") {
    for (const int before : {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 29, 30, 31, 200}) {
      CAPTURE(before);
      pesc::mixture straight{{{3, 1.0}, {5, 1.0}}, 11};
      draw(straight, before);
      const pesc::mixture_state state = straight.state();
      pesc::mixture resumed{{{3, 1.0}, {5, 1.0}}, 11};
      draw(resumed, 17);
      resumed.restore(state);
      CHECK(draw(straight, 50) == draw(resumed, 50));
    }
  }

  TEST_CASE("sources that cannot be mixed are refused") {
    CHECK_THROWS_AS((pesc::mixture{{}, 1}), pesc::shape_error);
    CHECK_THROWS_AS((pesc::mixture{{{0, 1.0}}, 1}), pesc::shape_error);
    CHECK_THROWS_AS((pesc::mixture{{{5, 0.0}}, 1}), pesc::shape_error);
    CHECK_THROWS_AS((pesc::mixture{{{5, std::numeric_limits<double>::infinity()}}, 1}), pesc::shape_error);
    CHECK_THROWS_AS((pesc::mixture{{{5, std::numeric_limits<double>::quiet_NaN()}}, 1}), pesc::shape_error);
    pesc::mixture one{{{5, 1.0}}, 1};
    CHECK_THROWS_WITH_AS(one.restore({3, {1, 2}}), "saved data order has 2 data sets, this run has 1",
                         pesc::shape_error);
  }

  TEST_CASE("a weight follows the file name after a colon") {
    CHECK(pesc::parse_weighted_path("a.jsonl").path == "a.jsonl");
    CHECK(pesc::parse_weighted_path("a.jsonl").weight == 1.0);
    CHECK(pesc::parse_weighted_path("dir/a.jsonl:0.3").path == "dir/a.jsonl");
    CHECK(pesc::parse_weighted_path("dir/a.jsonl:0.3").weight == 0.3);
    CHECK(pesc::parse_weighted_path("a.txt:12").weight == 12.0);
    CHECK(pesc::parse_weighted_path("a.txt:.5").weight == 0.5);
    CHECK(pesc::parse_weighted_path("C:folder/a.txt").path == "C:folder/a.txt");
    CHECK(pesc::parse_weighted_path("2026:1/a.txt").path == "2026:1/a.txt");
  }

  TEST_CASE("a weight that is no positive finite number is refused") {
    for (const char* text :
         {"a.jsonl:0", "a.jsonl:-1", "a.jsonl:nan", "a.jsonl:inf", "a.jsonl:1e99", "a.jsonl:0.3.1",
          "a.jsonl:9999999999", "a.jsonl:1234567890123456789", ":0.3", ""}) {
      CAPTURE(text);
      CHECK_THROWS_AS(static_cast<void>(pesc::parse_weighted_path(text)), pesc::shape_error);
    }
  }
}
