// SPDX-License-Identifier: Apache-2.0
#include "pesc/quant/q4_1.hpp"

#include <doctest/doctest.h>

#include "pesc/quant/quantize.hpp"

TEST_SUITE("quant/q4_1") {
  TEST_CASE("a weight is its code times the scale of its block, plus the minimum") {
    pesc::quantized_matrix<pesc::q4_1, pesc::row_blocks> w(pesc::q4_1::info(), 2, 32);
    w.absmax()[1] = 0.25f;
    w.minimum()[1] = -1.0f;
    w.codes()[16] = 0x0F;
    CHECK(pesc::dequantized(w.view(), 32) == -1.0f);
    CHECK(pesc::dequantized(w.view(), 33) == 2.75f);
    CHECK(pesc::dequantized(w.view(), 0) == 0.0f);
  }

  TEST_CASE("packing keeps codes, scales and minima") {
    pesc::quantized_matrix<pesc::q4_1, pesc::row_blocks> w(pesc::q4_1::info(), 70, 96);
    for (pesc::index_t i = 0; i < w.codes().size; ++i) w.codes()[i] = static_cast<std::uint8_t>(i * 37);
    for (pesc::index_t b = 0; b < w.absmax().size; ++b) {
      w.absmax()[b] = static_cast<float>(b) + 0.5f;
      w.minimum()[b] = -static_cast<float>(b);
    }
    const auto back = unpack(pack(w));
    for (pesc::index_t i = 0; i < w.codes().size; ++i) REQUIRE(back.codes()[i] == w.codes()[i]);
    for (pesc::index_t b = 0; b < w.absmax().size; ++b) {
      REQUIRE(back.absmax()[b] == w.absmax()[b]);
      REQUIRE(back.minimum()[b] == w.minimum()[b]);
    }
  }
}
