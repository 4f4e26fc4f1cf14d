// SPDX-License-Identifier: Apache-2.0
#include "pesc/core/types.hpp"

#include <bit>
#include <cmath>

#include <doctest/doctest.h>

#include "support/random.hpp"
#include "support/reference_quant.hpp"

namespace {

using namespace pesc;

std::uint32_t bits(float x) { return std::bit_cast<std::uint32_t>(x); }

TEST_CASE("every half and bfloat16 becomes a float of the same value and comes back as the same bits") {
  index_t wrong = 0;
  for (std::uint32_t i = 0; i < 65536; ++i) {
    const bf16 b{static_cast<std::uint16_t>(i)};
    const f16 h{static_cast<std::uint16_t>(i)};
    const int exponent = static_cast<int>(i >> 10 & 31);
    const double fraction = static_cast<double>(i & 1023);
    const double magnitude = exponent == 31  ? (fraction == 0 ? INFINITY : NAN)
                             : exponent == 0 ? std::ldexp(fraction, -24)
                                             : std::ldexp(1024 + fraction, exponent - 25);
    const double half = i < 32768 ? magnitude : -magnitude;
    const auto value = static_cast<double>(to_float(h));
    if (std::isnan(half) ? !std::isnan(value) : value != half || std::signbit(value) != std::signbit(half))
      ++wrong;
    if (bits(to_float(b)) != i << 16) ++wrong;
    if (std::isnan(to_float(b)) ? !std::isnan(to_float(to_bf16(to_float(b)))) : to_bf16(to_float(b)) != b)
      ++wrong;
    if (std::isnan(to_float(h)) ? !std::isnan(to_float(to_f16(to_float(h)))) : to_f16(to_float(h)) != h)
      ++wrong;
  }
  CHECK(wrong == 0);
}

TEST_CASE("numbers halfway between two neighbours go to the even one, their neighbours to the nearest") {
  index_t wrong = 0;
  for (std::uint32_t i = 0; i < 0x7F7F; ++i) {
    const std::uint32_t middle = i << 16 | 0x8000;
    const auto at = [](std::uint32_t word) {
      return std::uint32_t{to_bf16(std::bit_cast<float>(word)).bits};
    };
    if (at(middle) != i + (i & 1) || at(middle - 1) != i || at(middle + 1) != i + 1) ++wrong;
    if (at(middle | 0x80000000u) != ((i + (i & 1)) | 0x8000u)) ++wrong;
  }
  for (std::uint32_t i = 0; i < 0x7BFF; ++i) {
    const float low = to_float(f16{static_cast<std::uint16_t>(i)}),
                high = to_float(f16{static_cast<std::uint16_t>(i + 1)});
    const float middle = 0.5f * (low + high);  // exact: a half has 13 bits to spare
    const auto at = [](float x) { return std::uint32_t{to_f16(x).bits}; };
    if (at(middle) != i + (i & 1) || at(std::nextafter(middle, 0.0f)) != i ||
        at(std::nextafter(middle, 1e9f)) != i + 1)
      ++wrong;
    if (at(-middle) != ((i + (i & 1)) | 0x8000u)) ++wrong;
  }
  CHECK(wrong == 0);
}

TEST_CASE("rounding agrees with ldexp and nearbyint for random floats") {
  support::generator g(1);
  index_t wrong = 0;
  for (int i = 0; i < 200000; ++i) {
    const float x = std::bit_cast<float>(static_cast<std::uint32_t>(g.bits()));
    if (std::isnan(x)) continue;
    if (to_bf16(x).bits != reference::bf16_bits(x) || to_f16(x).bits != reference::f16_bits(x)) ++wrong;
  }
  CHECK(wrong == 0);
}

TEST_CASE("too large numbers become infinite, NaN stays, in both signs") {
  CHECK(to_f16(65519.996f).bits == 0x7BFF);
  CHECK(to_f16(65520.0f).bits == 0x7C00);
  CHECK(to_f16(-1e30f).bits == 0xFC00);
  CHECK(to_f16(INFINITY).bits == 0x7C00);
  CHECK(to_bf16(3.4e38f).bits == 0x7F80);
  CHECK(to_bf16(-INFINITY).bits == 0xFF80);
  // A NaN whose upper bits are all zero must not turn into infinity.
  const float narrow = std::bit_cast<float>(0x7F800001u);
  CHECK(std::isnan(to_float(to_bf16(narrow))));
  CHECK(std::isnan(to_float(to_f16(narrow))));
  CHECK(to_f16(0x1p-25f).bits == 0);
  CHECK(to_f16(std::nextafter(0x1p-25f, 1.0f)).bits == 1);
}

TEST_CASE("conversions are constant expressions") {
  static_assert(to_bf16(1.0f).bits == 0x3F80);
  static_assert(to_f16(1.0f).bits == 0x3C00);
  static_assert(to_float(f16{0x0001}) == 0x1p-24f);
  static_assert(from_float<float>(0.1f) == 0.1f);
  static_assert(from_float<bf16>(2.0f) == bf16{0x4000});
  static_assert(Scalar<bf16> && !Scalar<double> && Compute<float> && !Compute<f16>);
}

TEST_CASE("mul_then_add rounds twice") {
  // 1 + 2^-12 squared is 1 + 2^-11 + 2^-24; the product loses the last term, a fused operation would keep it.
  const float a = 1.0f + 0x1p-12f;
  CHECK(mul_then_add(a, a, -1.0f) == 0x1p-11f);
  CHECK(std::fma(a, a, -1.0f) != 0x1p-11f);
}

TEST_CASE("ceil_div and round_up") {
  CHECK(ceil_div(0, 7) == 0);
  CHECK(ceil_div(1, 7) == 1);
  CHECK(ceil_div(14, 7) == 2);
  CHECK(ceil_div(15, 7) == 3);
  CHECK(round_up(65, 64) == 128);
  CHECK(round_up(0, 64) == 0);
}

}  // namespace
