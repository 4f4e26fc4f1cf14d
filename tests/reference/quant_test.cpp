// SPDX-License-Identifier: Apache-2.0
// Published vectors of the 4-bit formats, reproduced bit for bit.
#include <bit>
#include <cmath>
#include <string>

#include <doctest/doctest.h>

#include "support/crc32.hpp"
#include "support/near.hpp"
#include "support/quant_vectors.hpp"
#include "support/reference.hpp"

namespace {

using namespace reference;
using namespace quant_vectors;

quantised4 nf4_of(const list<float>& values, index_t block = 64) {
  return quantise4(code_book::nf4, values.data(), values.count(), block);
}

struct checksums {
  std::uint32_t packed, f32, bf16, f16;
};

void check(const quantised4& q, const checksums& expected) {
  const list<float> values = dequantise4(q);
  CHECK(support::crc32(q.packed) == expected.packed);
  CHECK(support::crc32(values) == expected.f32);
  CHECK(crc_of(values, bf16_bits) == expected.bf16);
  CHECK(crc_of(values, f16_bits) == expected.f16);
}

TEST_CASE("the check value of CRC-32") { CHECK(support::crc32("123456789", 9) == 0xCBF43926u); }

TEST_CASE("the generators give their first numbers") {
  const list<float> first{fraction(0), fraction(1), fraction(2), fraction(3)};
  CHECK(first == list<float>{0, 0.635197639465332f, 0.38246917724609375f, -0.9535918235778809f});
  CHECK(bits(weights(0, 4)) == list<std::uint32_t>{0x3aa7f800, 0x3c8308eb, 0xbc98fb76, 0xbc7a21c2});
}

TEST_CASE("levels and thresholds have their bit patterns") {
  const std::uint32_t nf4[] = {0xbf800000, 0xbf3239b1, 0xbf066b30, 0xbeca32a0, 0xbe91a24d, 0xbe3d353f,
                               0xbdba7871, 0,          0x3da2faff, 0x3e24cae3, 0x3e7c04dd, 0x3ead033a,
                               0x3ee1a4b8, 0x3f1007ab, 0x3f3913b3, 0x3f800000};
  const std::uint32_t thresholds[] = {0xbf591cd8, 0xbf1c5270, 0xbeeb8480, 0xbeadea76, 0xbe703cec,
                                      0xbe0d38bc, 0xbd3a7871, 0x3d22faff, 0x3df64862, 0x3e5067e0,
                                      0x3e9582d4, 0x3ec753f9, 0x3f006d04, 0x3f248daf, 0x3f5c89da};
  const std::uint32_t fp4[] = {0,          0x3baaaaab, 0x3f2aaaab, 0x3f800000,
                               0x3eaaaaab, 0x3f000000, 0x3e2aaaab, 0x3e800000};
  const auto levels = levels_of(code_book::nf4);
  const auto fp4_levels = levels_of(code_book::fp4);
  for (std::size_t i = 0; i < 16; ++i) CHECK(std::bit_cast<std::uint32_t>(levels[i]) == nf4[i]);
  for (std::size_t i = 0; i < 15; ++i)
    CHECK(std::bit_cast<std::uint32_t>(midpoint(levels[i], levels[i + 1])) == thresholds[i]);
  for (std::size_t i = 0; i < 8; ++i) {
    CHECK(std::bit_cast<std::uint32_t>(fp4_levels[i]) == fp4[i]);
    CHECK(std::bit_cast<std::uint32_t>(fp4_levels[i + 8]) == (fp4[i] | 0x80000000u));
  }
}

TEST_CASE("levels in 16 bits have their bit patterns") {
  const std::uint16_t bf16[] = {0xbf80, 0xbf32, 0xbf06, 0xbeca, 0xbe92, 0xbe3d, 0xbdba, 0,
                                0x3da3, 0x3e25, 0x3e7c, 0x3ead, 0x3ee2, 0x3f10, 0x3f39, 0x3f80};
  const std::uint16_t f16[] = {0xbc00, 0xb992, 0xb833, 0xb652, 0xb48d, 0xb1ea, 0xadd4, 0,
                               0x2d18, 0x3126, 0x33e0, 0x3568, 0x370d, 0x3880, 0x39c9, 0x3c00};
  const auto levels = levels_of(code_book::nf4);
  for (std::size_t i = 0; i < 16; ++i) {
    CHECK(bf16_bits(levels[i]) == bf16[i]);
    CHECK(f16_bits(levels[i]) == f16[i]);
  }
}

TEST_CASE("rounding through half precision differs from rounding at once") {
  const float value = from_bits(0xbbc57570);
  CHECK(bf16_bits(value) == 0xbbc5);
  CHECK(f16_bits(value) == 0x9e2c);
  CHECK(bf16_bits(round_to_f16(value)) == 0xbbc6);
}

TEST_CASE("16-bit rounding handles subnormal, large and signed zero values") {
  CHECK(f16_bits(0x1p-24f) == 1);
  CHECK(f16_bits(0x1p-25f) == 0);
  CHECK(f16_bits(-0.0f) == 0x8000);
  CHECK(f16_bits(65504.0f) == 0x7bff);
  CHECK(f16_bits(65519.9f) == 0x7bff);
  CHECK(f16_bits(65520.0f) == 0x7c00);
  CHECK(f16_bits(0x1p-14f) == 0x0400);
  CHECK(bf16_bits(-0.0f) == 0x8000);
  CHECK(bf16_bits(3.4e38f) == 0x7f80);
}

TEST_CASE("RAMP: evenly spaced values") {
  list<float> values;
  for (index_t i = 0; i < 64; ++i) values.push_back(static_cast<float>(2 * i - 63) / 64);
  const quantised4 q = nf4_of(values);
  CHECK(bits(q.absmax) == list<std::uint32_t>{0x3f7c0000});
  CHECK(hex(q.packed) == "00000111111112222233344445556667788899aaabbbccccddddeeeeeeefffff");
  check(q, {0xb85c8231, 0xd4b0d108, 0x96a6961d, 0x7a4ba902});
}

TEST_CASE("ZERO: a block of zeros has codes 7 and scale 0, a partial one the smallest divisor") {
  const quantised4 q = nf4_of(list<float>(64));
  CHECK(hex(q.packed) == std::string(64, '7'));
  CHECK(support::crc32(q.packed) == 0xd5201364u);
  CHECK(q.absmax[0] == 0);
  CHECK(nf4_of(list<float>(65)).absmax == list<float>{0, 1e-38f});
  CHECK(hex(quantise4(code_book::fp4, list<float>(64).data(), 64, 64).packed) == std::string(64, '0'));
}

TEST_CASE("TIES: a threshold belongs to the lower code, the next float to the upper") {
  const auto levels = levels_of(code_book::nf4);
  list<float> ties, above;
  for (std::size_t i = 0; i < 15; ++i) {
    ties.push_back(midpoint(levels[i], levels[i + 1]));
    above.push_back(std::nextafter(ties.back(), 2.0f));
  }
  ties.push_back(1);
  above.push_back(1);
  CHECK(hex(nf4_of(ties).packed) == "0123456789abcdef");
  CHECK(hex(nf4_of(above).packed) == "123456789abcdeff");
}

TEST_CASE("SIGN: both signs of a few values") {
  const quantised4 q = nf4_of({-2, 1, 0.5f, -0.5f, 0.25f, -0.25f, 1.9375f, -1.9375f});
  CHECK(bits(q.absmax) == list<std::uint32_t>{0x40000000});
  CHECK(hex(q.packed) == "0ca496f0");
  check(q, {0x2f454a98, 0xf078bbd1, 0x5179c432, 0x1cba8ece});
}

TEST_CASE("TAIL and ODD: partial last blocks and an unused half byte") {
  const quantised4 tail = nf4_of(weights(0, 70));
  CHECK(bits(tail.absmax) == list<std::uint32_t>{0x3d466dc2, 0x3d642fd2});
  CHECK(hex(tail.packed) == "7b34679d3ed75e8571c39a767ee45b64522bc5835605028c5895660c66117413731f9a");
  check(tail, {0xfc66d0a5, 0x22f82dbd, 0x6e61f14c, 0x40be5d0e});
  const quantised4 odd = nf4_of(weights(0, 67));
  CHECK(bits(odd.absmax) == list<std::uint32_t>{0x3d466dc2, 0x3d300e36});
  CHECK(hex(odd.packed) == "7b34679d3ed75e8571c39a767ee45b64522bc5835605028c5895660c661174137207");
  check(odd, {0xda4500f0, 0x76ca1df0, 0x65d1aedf, 0xf9768401});
}

TEST_CASE("STRADDLE: blocks run across the rows of a matrix") {
  const quantised4 q = nf4_of(weights(1000, 1120));
  CHECK(bits(q.absmax) == list<std::uint32_t>{0x3d4d5e26, 0x3d451882});
  CHECK(hex(q.packed) ==
        "54d5bc3adb1dc4637b17342cf3d4c5431a78888fbf4d6628e308709b3179463b88b427115e494d8b3ada0c671e111739a462"
        "49625c69ea2e"
        "ff132306");
  check(q, {0xf893f8d4, 0x1d818893, 0x685aa0c4, 0x4089432c});
}

TEST_CASE("BF16 INPUT and FP16 INPUT: values of 16 bits") {
  list<float> rounded, halves;
  for (const float value : weights(0, 64)) {
    rounded.push_back(round_to_bf16(value));
    halves.push_back(round_to_f16(value));
  }
  CHECK(bits(list<float>(std::vector<float>(rounded.begin(), rounded.begin() + 4))) ==
        list<std::uint32_t>{0x3aa80000, 0x3c830000, 0xbc990000, 0xbc7a0000});
  const quantised4 q = nf4_of(rounded);
  CHECK(bits(q.absmax) == list<std::uint32_t>{0x3d460000});
  check(q, {0xb211aeaf, 0xcf7ac7ca, 0x80c163d3, 0x9d3a75d4});
  const quantised4 half = nf4_of(halves);
  CHECK(bits(half.absmax) == list<std::uint32_t>{0x3d466000});
  check(half, {0xb211aeaf, 0xc55fd424, 0x08749c59, 0x3cc1067a});
}

TEST_CASE("BLOCK SIZES: the same values in blocks of 32 to 256") {
  const list<float> values = weights(0, 256);
  const auto check_block = [&](index_t block, std::uint32_t packed, std::uint32_t f32) {
    const quantised4 q = nf4_of(values, block);
    CHECK(support::crc32(q.packed) == packed);
    CHECK(support::crc32(dequantise4(q)) == f32);
  };
  check_block(32, 0x1e6d5d69, 0x3168523e);
  check_block(64, 0xad7bad44, 0x1ea1719d);
  check_block(128, 0x1fe08d50, 0x208b2767);
  check_block(256, 0x1fe08d50, 0xfa060d1f);
  CHECK(bits(nf4_of(values).absmax) == list<std::uint32_t>{0x3d466dc2, 0x3d77c923, 0x3d50e85c, 0x3d775f94});
}

TEST_CASE("TINY: one value near the smallest normal float") {
  list<float> values(64);
  values[63] = 1e-30f;
  const quantised4 q = nf4_of(values);
  CHECK(bits(q.absmax) == list<std::uint32_t>{0x0da24260});
  CHECK(hex(q.packed) == std::string(62, '7') + "7f");
}

TEST_CASE("FP4: every level is encoded as itself and small values become one of the zeros") {
  const auto levels = levels_of(code_book::fp4);
  for (std::uint8_t code = 1; code < 16; ++code)
    if (code != 8) CHECK(encode4(code_book::fp4, levels[code]) == code);
  CHECK(encode4(code_book::fp4, 0) == 0);
  CHECK(encode4(code_book::fp4, 0.0026f) == 8);
  CHECK(encode4(code_book::fp4, -0.0026f) == 0);
  CHECK(encode4(code_book::fp4, 0.0027f) == 1);
  CHECK(encode4(code_book::fp4, -0.0027f) == 9);
}

TEST_CASE("MATVEC: a product with decoded weights and its input gradient") {
  const list<float> decoded = dequantise4(nf4_of(weights(0, 256)));
  const matrix w = from(decoded.data(), 4, 64), plain = from(weights(0, 256).data(), 4, 64);
  matrix x(1, 64);
  for (index_t j = 0; j < 64; ++j) x[j] = static_cast<double>(fraction(10000 + j));
  const linear quantised{w, {}, {}}, original{plain, {}, {}};
  const std::vector<double> y{0.1036852756, -0.1752079285, -0.0389513196, 0.1759610305};
  CHECK(support::near(linear_forward(quantised, x), y, 1e-9));
  const std::vector<double> exact{0.1040408385, -0.1550390631, -0.0419843041, 0.1799758936};
  CHECK(support::near(linear_forward(original, x), exact, 1e-9));
  const matrix dx = linear_backward(quantised, x, matrix(1, 4, {1, -2, 0.5, 0.25})).dx;
  const std::vector<double> first{-0.0038597435, 0.0417987239, 0.0587451153, -0.1310528123};
  CHECK(support::near(std::vector<double>(dx.values.begin(), dx.values.begin() + 4), first, 1e-9));
  double sum = 0;
  for (const double value : dx.values) sum += value;
  CHECK(std::fabs(sum + 0.9497989730) < 1e-10);
}

}  // namespace
