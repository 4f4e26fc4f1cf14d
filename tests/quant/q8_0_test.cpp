// SPDX-License-Identifier: Apache-2.0
#include "pesc/quant/q8_0.hpp"

#include <doctest/doctest.h>

#include "pesc/quant/quantize.hpp"

TEST_SUITE("quant/q8_0") {
  TEST_CASE("a weight is its signed code times the scale of its block") {
    pesc::quantized_matrix<pesc::q8_0, pesc::row_blocks> w(pesc::q8_0::info(), 1, 64);
    w.absmax()[0] = 0.5f;
    w.absmax()[1] = 2.0f;
    w.codes()[0] = 0x80;
    w.codes()[31] = 0x7F;
    w.codes()[63] = 0xFF;
    CHECK(pesc::dequantized(w.view(), 0) == -64.0f);
    CHECK(pesc::dequantized(w.view(), 31) == 63.5f);
    CHECK(pesc::dequantized(w.view(), 63) == -2.0f);
  }

  TEST_CASE("packing keeps codes and scales") {
    pesc::quantized_matrix<pesc::q8_0, pesc::row_blocks> w(pesc::q8_0::info(), 65, 160);
    for (pesc::index_t i = 0; i < w.codes().size; ++i) w.codes()[i] = static_cast<std::uint8_t>(i * 31);
    for (pesc::index_t b = 0; b < w.absmax().size; ++b) w.absmax()[b] = static_cast<float>(b);
    const auto back = unpack(pack(w));
    for (pesc::index_t i = 0; i < w.codes().size; ++i) REQUIRE(back.codes()[i] == w.codes()[i]);
    for (pesc::index_t b = 0; b < w.absmax().size; ++b) REQUIRE(back.absmax()[b] == w.absmax()[b]);
  }
}
