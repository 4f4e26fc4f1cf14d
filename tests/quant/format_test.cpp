// SPDX-License-Identifier: Apache-2.0
#include "pesc/quant/format.hpp"

#include <cmath>

#include <doctest/doctest.h>

#include "pesc/quant/fp4.hpp"
#include "pesc/quant/nf4.hpp"
#include "pesc/quant/unquantized.hpp"

namespace {

using namespace pesc;

TEST_CASE("a description orders its codes by level and puts thresholds halfway") {
  for (const format_info& info : {nf4<>::info(), fp4<>::info(),
                                  make_code4_info({5, 4, 3, 2, 1, 0, -1, -2, -3, -4, -5, -6, -7, -8, -9, -10},
                                                  32, scale_kind::plain, "falling")}) {
    CAPTURE(info.name);
    bool seen[16] = {};
    for (std::size_t i = 0; i < 16; ++i) {
      seen[info.order[i]] = true;
      if (i == 0) continue;
      const float low = info.levels[info.order[i - 1]], high = info.levels[info.order[i]];
      CHECK(low <= high);
      CHECK(info.thresholds[i - 1] == 0.5f * (low + high));
    }
    for (const bool s : seen) CHECK(s);
  }
}

TEST_CASE("encode gives the nearest level, the smaller one at a tie") {
  for (const format_info& info : {nf4<>::info(), fp4<>::info()}) {
    for (int i = -1100; i <= 1100; ++i) {
      const float u = static_cast<float>(i) / 1000;
      const float chosen = std::fabs(info.levels[info.encode(u)] - u);
      for (const float level : info.levels) CHECK(chosen <= std::fabs(level - u) + 1e-7f);
    }
    for (std::size_t i = 0; i < 15; ++i) {
      const float t = info.thresholds[i];
      CHECK(info.levels[info.encode(t)] <= t);
      CHECK(info.levels[info.encode(std::nextafter(t, 2.0f))] == info.levels[info.order[i + 1]]);
    }
  }
}

TEST_CASE("counts of blocks and bytes round up") {
  const format_info info = nf4<64>::info();
  CHECK(info.blocks(0) == 0);
  CHECK(info.blocks(64) == 1);
  CHECK(info.blocks(65) == 2);
  CHECK(info.code_bytes(7) == 4);
  CHECK(unquantized<bf16>::info().code_bytes(7) == 14);
  CHECK(unquantized<float>::info().blocks(100) == 0);
  CHECK(bits_of(element_kind::f32) == 32);
  CHECK(bits_of(element_kind::code4) == 4);
}

TEST_CASE("formats are equal when files of them mean the same") {
  static_assert(nf4<>::info() == nf4<64>::info());
  static_assert(!(nf4<64>::info() == nf4<128>::info()));
  static_assert(!(nf4<64>::info() == fp4<64>::info()));
  static_assert(!(nf4<64>::info() == nf4<64, double_quant<>>::info()));
  static_assert(QuantFormat<any_format> && !QuantFormat<int>);
}

}  // namespace
