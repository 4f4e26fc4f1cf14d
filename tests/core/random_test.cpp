// SPDX-License-Identifier: Apache-2.0
#include "pesc/core/random.hpp"

#include <set>

#include <doctest/doctest.h>

namespace {

using namespace pesc;
using words = pesc::array<std::uint32_t, 4>;

TEST_CASE("Philox gives the published numbers") {
  static_assert(philox({0, 0, 0, 0}, {0, 0}) == words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  constexpr std::uint32_t ones = 0xffffffff;
  CHECK(philox({ones, ones, ones, ones}, {ones, ones}) ==
        words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("uniform numbers lie in [0, 1) and spread evenly") {
  CHECK(to_unit(0) == 0.0f);
  CHECK(to_unit(0xffffffff) < 1.0f);
  const random_stream stream{.seed = 42};
  int bins[16] = {};
  constexpr std::uint32_t n = 64000;
  for (std::uint32_t i = 0; i < n; ++i) ++bins[static_cast<int>(stream.uniform(i / 100, i % 100) * 16)];
  double chi = 0;
  for (const int count : bins) chi += (count - n / 16.0) * (count - n / 16.0) / (n / 16.0);
  CHECK(chi < 50);  // 15 degrees of freedom: exceeded once in 100 000 draws
  CHECK(chi > 1);
}

TEST_CASE("every part of a stream's name leads to other numbers") {
  const random_stream base{.seed = 1, .step = 2, .layer = 3, .site = random_site::sampling, .part = 4};
  std::set<std::uint32_t> seen;
  const auto add = [&](random_stream s, std::uint32_t row = 0, std::uint32_t quad = 0) {
    seen.insert(s.words(row, quad)[0]);
  };
  add(base);
  add(base, 1);
  add(base, 0, 1);
  for (random_stream s : {base, base, base, base, base, base}) {
    static int which = 0;
    switch (which++) {
      case 0:
        s.seed = 2;
        break;
      case 1:
        s.seed |= std::uint64_t{1} << 40;
        break;
      case 2:
        s.step = 3;
        break;
      case 3:
        s.layer = 259;
        break;
      case 4:
        s.site = random_site::data_order;
        break;
      default:
        s.part = 5;
    }
    add(s);
  }
  CHECK(seen.size() == 9);
}

TEST_CASE("a number depends on its place alone") {
  const random_stream stream{.seed = 9};
  for (std::uint32_t col = 0; col < 9; ++col)
    CHECK(stream.uniform(7, col) == to_unit(stream.words(7, col / 4)[col % 4]));
}

}  // namespace
