// SPDX-License-Identifier: Apache-2.0
#include "pesc/quant/q4_0.hpp"

#include <doctest/doctest.h>

#include "pesc/quant/quantize.hpp"
#include "support/message_of.hpp"

TEST_SUITE("quant/q4_0") {
  TEST_CASE("a weight is eight less than its code times the scale of its block") {
    pesc::quantized_matrix<pesc::q4_0, pesc::row_blocks> w(pesc::q4_0::info(), 1, 64);
    w.absmax()[0] = 0.5f;
    w.absmax()[1] = -2.0f;
    w.codes()[0] = 0x0F;
    w.codes()[31] = 0x88;
    CHECK(pesc::dequantized(w.view(), 0) == -4.0f);
    CHECK(pesc::dequantized(w.view(), 1) == 3.5f);
    CHECK(pesc::dequantized(w.view(), 62) == 0.0f);
    CHECK(pesc::dequantized(w.view(), 32) == 16.0f);
  }

  TEST_CASE("nothing is quantised to it, and rows are whole blocks") {
    const float value = 1.0f;
    CHECK(support::contains(support::message_of<pesc::shape_error>([&] {
                              static_cast<void>(
                                  pesc::quantize<pesc::q4_0>(pesc::matrix_view<const float>(&value, 1, 1)));
                            }),
                            "q4_0: weights of this format come from files only"));
    CHECK(support::contains(support::message_of<pesc::shape_error>([] {
                              pesc::quantized_matrix<pesc::q4_0, pesc::row_blocks>{pesc::q4_0::info(), 2, 48};
                            }),
                            "rows must be whole blocks of 32"));
  }
}
