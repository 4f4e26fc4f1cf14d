// SPDX-License-Identifier: Apache-2.0
// Published vectors of the 8-bit map and of scales stored with it, reproduced bit for bit.
#include <bit>
#include <cmath>

#include <doctest/doctest.h>

#include "support/crc32.hpp"
#include "support/quant_vectors.hpp"
#include "support/reference.hpp"

namespace {

using namespace reference;
using namespace quant_vectors;

TEST_CASE("the 8-bit map has its checksum and every entry is its own nearest") {
  const list<float> map = dynamic_map();
  CHECK(map.count() == 256);
  CHECK(support::crc32(map) == 0x1b137aebu);
  for (index_t i = 0; i < 256; ++i) CHECK(encode8(map, map[i]) == i);
}

TEST_CASE("8-BIT SEARCH: nearest entry, ties to the even index") {
  const list<float> map = dynamic_map();
  const struct {
    float u;
    int code;
  } near_values[] = {{0, 127},       {1e-7f, 127}, {5.5e-7f, 128}, {0.001f, 142}, {-0.001f, 112},
                     {0.3f, 205},    {-0.3f, 49},  {0.5f, 219},    {-0.5f, 35},   {0.9964f, 254},
                     {0.9965f, 255}, {1, 255},     {-1, 0},        {-0.999f, 0}};
  for (const auto& c : near_values) CHECK(encode8(map, c.u) == c.code);
  const struct {
    std::uint32_t u;
    int code;
  } ties[] = {{0xbf7c6666, 0},   {0xbf78cccd, 2},   {0x3493a3b7, 128},
              {0x3e766666, 200}, {0x3e826666, 202}, {0x3f7f199a, 254}};
  for (const auto& c : ties) CHECK(encode8(map, from_bits(c.u)) == c.code);
}

TEST_CASE("SMALL NESTED: four scales in 8 bits") {
  const quantised8 q = quantise_scales({0.5f, 0.25f, 0.75f, 1.0f});
  CHECK(q.offset == 0.625f);
  CHECK(q.absmax == list<float>{0.375f});
  CHECK(q.codes == list<std::uint8_t>{47, 0, 207, 255});
  CHECK(bits(restore_scales(q)) == list<std::uint32_t>{0x3f002000, 0x3e81599a, 0x3f3fe000, 0x3f800000});
}

double squared_error(const list<float>& a, const list<float>& b) {
  double sum = 0;
  for (index_t i = 0; i < a.count(); ++i) {
    const double difference = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    sum += difference * difference;
  }
  return sum;
}

TEST_CASE("DOUBLE QUANT: 512 blocks with scales in 8 bits") {
  list<float> values;
  for (const float value : weights(0, 32768)) values.push_back(round_to_bf16(value));
  const quantised4 q = quantise4(code_book::nf4, values.data(), values.count(), 64);
  CHECK(support::crc32(q.packed) == 0x9078e61cu);
  CHECK(support::crc32(dequantise4(q)) == 0xf777e94eu);
  CHECK(crc_of(dequantise4(q), bf16_bits) == 0x04b1c6afu);
  CHECK(crc_of(dequantise4(q), f16_bits) == 0x7f2a6f09u);
  CHECK(support::crc32(q.absmax) == 0xccd0cf20u);
  CHECK(std::fabs(squared_error(values, dequantise4(q)) - 1.4434125325e-01) < 1e-11);

  const quantised8 nested = quantise_scales(q.absmax);
  CHECK(std::bit_cast<std::uint32_t>(nested.offset) == 0x3d673280u);
  CHECK(bits(nested.absmax) == list<std::uint32_t>{0x3c859b00, 0x3c959b00});
  CHECK(list<std::uint8_t>(std::vector<std::uint8_t>(nested.codes.begin(), nested.codes.begin() + 16)) ==
        list<std::uint8_t>{35, 201, 47, 200, 24, 201, 204, 193, 227, 218, 216, 192, 208, 190, 44, 18});
  CHECK(support::crc32(nested.codes) == 0xc505c832u);

  const list<float> restored = restore_scales(nested);
  CHECK(support::crc32(restored) == 0x5c926d28u);
  const list<float> decoded = dequantise4(q, restored);
  CHECK(support::crc32(decoded) == 0x8413b00au);
  CHECK(crc_of(decoded, bf16_bits) == 0xfd6f0551u);
  CHECK(crc_of(decoded, f16_bits) == 0x28b80665u);
  CHECK(std::fabs(squared_error(values, decoded) - 1.4438188931e-01) < 1e-11);
}

}  // namespace
