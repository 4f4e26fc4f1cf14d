// SPDX-License-Identifier: Apache-2.0
#include "pesc/quant/fp4.hpp"

#include <bit>

#include <doctest/doctest.h>

namespace {

using namespace pesc;

TEST_CASE("levels of fp4 have the bits that files rely on, a sign in the highest bit") {
  const std::uint32_t magnitudes[] = {0,          0x3baaaaab, 0x3f2aaaab, 0x3f800000,
                                      0x3eaaaaab, 0x3f000000, 0x3e2aaaab, 0x3e800000};
  for (std::uint8_t code = 0; code < 8; ++code) {
    CHECK(std::bit_cast<std::uint32_t>(fp4<>::level(code)) == magnitudes[code]);
    CHECK(std::bit_cast<std::uint32_t>(fp4<>::level(static_cast<std::uint8_t>(code + 8))) ==
          (magnitudes[code] | 0x80000000u));
  }
}

TEST_CASE("every level is encoded as itself, and near zero as one of the zeros") {
  for (std::uint8_t code = 1; code < 16; ++code)
    if (code != 8) CHECK(fp4<>::encode(fp4<>::level(code)) == code);
  CHECK(fp4<>::encode(0.0f) == 0);
  CHECK(fp4<>::level(fp4<>::encode(0.0026f)) == 0.0f);
  CHECK(fp4<>::level(fp4<>::encode(-0.0026f)) == 0.0f);
  CHECK(fp4<>::encode(0.0027f) == 1);
  CHECK(fp4<>::encode(-0.0027f) == 9);
}

}  // namespace
