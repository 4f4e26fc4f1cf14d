// SPDX-License-Identifier: Apache-2.0
#include "pesc/quant/scales.hpp"

#include <algorithm>
#include <bit>
#include <vector>

#include <doctest/doctest.h>

#include "support/reference_quant.hpp"

namespace {

using namespace pesc;

TEST_CASE("the dynamic map agrees with its definition") {
  const auto expected = reference::dynamic_map();
  REQUIRE(expected.size() == 256);
  const auto& map = dynamic_map();
  for (std::size_t i = 0; i < 256; ++i) {
    CAPTURE(i);
    CHECK(map[i] == doctest::Approx(expected.data()[i]).epsilon(1e-6));
    if (i > 0) CHECK(map[i] > map[i - 1]);
  }
  CHECK(map[127] == 0.0f);
  CHECK(map[255] == 1.0f);
}

TEST_CASE("the search finds every entry, and the published cases") {
  const float* map = dynamic_map().data();
  for (int i = 0; i < 256; ++i) CHECK(encode_dynamic(map, map[i]) == i);
  struct {
    float u;
    int code;
  } const cases[] = {{0, 127},       {1e-7f, 127}, {5.5e-7f, 128}, {0.001f, 142}, {-0.001f, 112},
                     {0.3f, 205},    {-0.3f, 49},  {0.5f, 219},    {-0.5f, 35},   {0.9964f, 254},
                     {0.9965f, 255}, {1, 255},     {-1, 0},        {-0.999f, 0}};
  for (const auto& c : cases) {
    CAPTURE(c.u);
    CHECK(encode_dynamic(map, c.u) == c.code);
  }
  struct {
    std::uint32_t bits;
    int code;
  } const ties[] = {{0xbf7c6666, 0},   {0xbf78cccd, 2},   {0x3493a3b7, 128},
                    {0x3e766666, 200}, {0x3e826666, 202}, {0x3f7f199a, 254}};
  for (const auto& t : ties) {
    CAPTURE(t.bits);
    CHECK(encode_dynamic(map, std::bit_cast<float>(t.bits)) == t.code);
  }
  CHECK(encode_dynamic(map, NAN) == 0);
  CHECK(encode_dynamic(map, 1e30f) == 255);
  CHECK(encode_dynamic(map, -INFINITY) == 0);
}

TEST_CASE("scales of every kind are read by block") {
  const float absmax[] = {0.5f, 2.0f};
  scale_tensors<> s;
  s.absmax = absmax;
  CHECK(decode_scale(scale_kind::plain, s, 1) == 2.0f);
  CHECK(decode_scale(scale_kind::none, s, 1) == 1.0f);
  // Blocks 0 and 256 have different second-level scales.
  std::vector<std::uint8_t> codes(257, 255);
  codes[256] = 47;
  const float nested[] = {0.375f, 0.25f};
  s.codes = codes.data();
  s.nested_absmax = nested;
  s.map = dynamic_map().data();
  s.offset = 0.625f;
  CHECK(decode_scale(scale_kind::double_quant, s, 255) == 1.0f);
  CHECK(decode_scale(scale_kind::double_quant, s, 256) == dynamic_map()[47] * 0.25f + 0.625f);
}

TEST_CASE("a second-level scale is multiplied, rounded, then added to") {
  // Chosen so that a fused operation would give another bit.
  const float entry = 1.0f + 0x1p-12f;
  CHECK(nested_scale(entry, entry, -1.0f) == 0x1p-11f);
}

}  // namespace
