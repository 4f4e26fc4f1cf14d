// SPDX-License-Identifier: Apache-2.0
#include "pesc/quant/nf4.hpp"

#include <bit>

#include <doctest/doctest.h>

namespace {

using namespace pesc;

TEST_CASE("levels and thresholds of nf4 have the bits that files rely on") {
  const std::uint32_t levels[] = {0xbf800000, 0xbf3239b1, 0xbf066b30, 0xbeca32a0, 0xbe91a24d, 0xbe3d353f,
                                  0xbdba7871, 0,          0x3da2faff, 0x3e24cae3, 0x3e7c04dd, 0x3ead033a,
                                  0x3ee1a4b8, 0x3f1007ab, 0x3f3913b3, 0x3f800000};
  const std::uint32_t thresholds[] = {0xbf591cd8, 0xbf1c5270, 0xbeeb8480, 0xbeadea76, 0xbe703cec,
                                      0xbe0d38bc, 0xbd3a7871, 0x3d22faff, 0x3df64862, 0x3e5067e0,
                                      0x3e9582d4, 0x3ec753f9, 0x3f006d04, 0x3f248daf, 0x3f5c89da};
  for (std::size_t i = 0; i < 16; ++i) CHECK(std::bit_cast<std::uint32_t>(nf4<>::levels()[i]) == levels[i]);
  for (std::size_t i = 0; i < 15; ++i) {
    CHECK(std::bit_cast<std::uint32_t>(nf4<>::info().thresholds[i]) == thresholds[i]);
    CHECK(nf4<>::encode(std::bit_cast<float>(thresholds[i])) == i);
  }
}

TEST_CASE("every level is encoded as itself") {
  for (std::uint8_t code = 0; code < 16; ++code) CHECK(nf4<>::encode(nf4<>::level(code)) == code);
  CHECK(nf4<>::encode(0.0f) == 7);
  CHECK(nf4<>::encode(-0.0f) == 7);
  CHECK(nf4<>::encode(-5.0f) == 0);
  CHECK(nf4<>::encode(5.0f) == 15);
}

TEST_CASE("the block and the codec of scales are part of the type") {
  static_assert(nf4<128>::block == 128 && nf4<>::bits == 4);
  static_assert(nf4<64, double_quant<>>::info().scales == scale_kind::double_quant);
  static_assert(nf4<32>::info().block == 32);
}

}  // namespace
