// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>

#include "support/reference_matrix.hpp"

/// Block-wise quantisation in single precision, where the bits of the result are fixed by the file format.
namespace reference {

/// \brief A product that no compiler can fuse with a following sum.
inline float rounded_product(float a, float b) {
  volatile float product = a * b;
  return product;
}

/// \brief Nearest number with `digits` binary digits and exponents from `lowest` on, ties to even.
inline double round_to_digits(double value, int digits, int lowest) {
  if (value == 0 || !std::isfinite(value)) return value;
  const int exponent = std::max(std::ilogb(value), lowest) - (digits - 1);
  return std::ldexp(std::nearbyint(std::ldexp(value, -exponent)), exponent);
}

/// \brief Value of a float rounded to bfloat16.
inline float round_to_bf16(float value) {
  const double rounded = round_to_digits(static_cast<double>(value), 8, -126);
  return std::fabs(rounded) < 0x1p128 ? static_cast<float>(rounded) : std::copysign(INFINITY, value);
}

/// \brief Value of a float rounded to IEEE half precision.
inline float round_to_f16(float value) {
  const double rounded = round_to_digits(static_cast<double>(value), 11, -14);
  return std::fabs(rounded) < 65520 ? static_cast<float>(rounded) : std::copysign(INFINITY, value);
}

/// \brief Bit pattern of a float rounded to bfloat16 (not for NaN).
inline std::uint16_t bf16_bits(float value) {
  return static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(round_to_bf16(value)) >> 16);
}

/// \brief Bit pattern of a float rounded to half precision (not for NaN).
inline std::uint16_t f16_bits(float value) {
  const double rounded = std::fabs(static_cast<double>(round_to_f16(value)));
  const int sign = std::signbit(value) ? 0x8000 : 0;
  if (rounded >= 65536) return static_cast<std::uint16_t>(sign | 0x7C00);
  // Below 2^-14 the exponent field is 0 and the fraction counts 2^-24.
  if (rounded < 0x1p-14) return static_cast<std::uint16_t>(sign | static_cast<int>(rounded * 0x1p24));
  const int exponent = std::ilogb(rounded);
  const int fraction = static_cast<int>(std::ldexp(rounded, 10 - exponent)) - 1024;
  return static_cast<std::uint16_t>(sign | (exponent + 15) << 10 | fraction);
}

enum class code_book { nf4, fp4 };

/// \brief The 16 values of a 4-bit code, in code order.
inline std::array<float, 16> levels_of(code_book book) {
  if (book == code_book::nf4)
    return {-1.0f,
            -0.6961928009986877f,
            -0.5250730514526367f,
            -0.39491748809814453f,
            -0.28444138169288635f,
            -0.18477343022823334f,
            -0.09105003625154495f,
            0.0f,
            0.07958029955625534f,
            0.16093020141124725f,
            0.24611230194568634f,
            0.33791524171829224f,
            0.44070982933044434f,
            0.5626170039176941f,
            0.7229568362236023f,
            1.0f};
  std::array<float, 16> levels{};
  const float twelfths[8] = {0, 0.0625f, 8, 12, 4, 6, 2, 3};
  for (std::size_t i = 0; i < 8; ++i) {
    levels[i] = twelfths[i] / 12;
    levels[i + 8] = -levels[i];
  }
  return levels;
}

inline float midpoint(float a, float b) { return (a + b) * 0.5f; }

/// \brief The codes in the order of their levels; of equal levels the lower code first.
inline std::array<std::uint8_t, 16> codes_by_level(code_book book) {
  const std::array<float, 16> levels = levels_of(book);
  std::array<std::uint8_t, 16> codes{};
  for (std::size_t i = 0; i < 16; ++i) codes[i] = static_cast<std::uint8_t>(i);
  std::stable_sort(codes.begin(), codes.end(), [&](auto a, auto b) { return levels[a] < levels[b]; });
  return codes;
}

/// \brief Code of a value in [-1, 1]: the nearest level, ties to the lower one.
///
/// Of the two zeros of FP4, 0 and 8, positive values get 8 and others 0, as sorting the levels has it.
inline std::uint8_t encode4(code_book book, float u) {
  static const std::array<std::uint8_t, 16> orders[] = {codes_by_level(code_book::nf4),
                                                        codes_by_level(code_book::fp4)};
  const std::array<std::uint8_t, 16>& order = orders[book == code_book::nf4 ? 0 : 1];
  const std::array<float, 16> levels = levels_of(book);
  std::size_t place = 0;
  while (place < 15 && u > midpoint(levels[order[place]], levels[order[place + 1]])) ++place;
  return order[place];
}

/// \brief 4-bit codes, two to a byte with the first in the high half, and one scale per block.
struct quantised4 {
  code_book book = code_book::nf4;
  index_t count = 0;
  index_t block = 64;
  list<std::uint8_t> packed;
  list<float> absmax;

  std::uint8_t code(index_t i) const {
    return static_cast<std::uint8_t>(i % 2 == 0 ? packed[i / 2] >> 4 : packed[i / 2] & 15);
  }
};

/// \brief Codes of a whole block are made with the reciprocal of its scale, of a partial one by division.
inline quantised4 quantise4(code_book book, const float* values, index_t count, index_t block) {
  quantised4 q{book, count, block, list<std::uint8_t>((count + 1) / 2), {}};
  const std::uint8_t filler = encode4(book, 0);
  if (count % 2 != 0) q.packed[count / 2] = filler;
  for (index_t begin = 0; begin < count; begin += block) {
    const index_t end = std::min(begin + block, count);
    const bool whole = end - begin == block;
    float largest = 0;
    for (index_t i = begin; i < end; ++i) largest = std::max(largest, std::fabs(values[i]));
    const float divisor = std::max(largest, 1e-38f);
    q.absmax.push_back(whole ? largest : divisor);
    for (index_t i = begin; i < end; ++i) {
      const float u = whole ? values[i] * (1 / divisor) : values[i] / divisor;
      const std::uint8_t code = encode4(book, std::clamp(u, -1.0f, 1.0f));
      std::uint8_t& byte = q.packed[i / 2];
      byte = static_cast<std::uint8_t>(i % 2 == 0 ? code << 4 | (byte & 15) : (byte & 240) | code);
    }
  }
  return q;
}

/// \brief level * scale, rounded once.
inline list<float> dequantise4(const quantised4& q, const list<float>& absmax) {
  const std::array<float, 16> levels = levels_of(q.book);
  list<float> values(q.count);
  for (index_t i = 0; i < q.count; ++i) values[i] = levels[q.code(i)] * absmax[i / q.block];
  return values;
}

inline list<float> dequantise4(const quantised4& q) { return dequantise4(q, q.absmax); }

/// \brief The signed 8-bit map: 2^i midpoints between 0.1 and 1 for each power 10^(i-6), both signs, 0 and 1.
inline list<float> dynamic_map() {
  list<float> map{0.0f, 1.0f};
  for (int i = 0; i < 7; ++i) {
    const int points = (1 << i) + 1;
    const float step = (1 - 0.1f) / static_cast<float>(points - 1);
    const auto boundary = [&](int j) {  // counted from the nearer end, as torch's linspace does
      if (j < points / 2) return std::fma(step, static_cast<float>(j), 0.1f);
      return std::fma(-step, static_cast<float>(points - 1 - j), 1.0f);
    };
    for (int j = 0; j + 1 < points; ++j) {
      const float fraction = (boundary(j) + boundary(j + 1)) / 2;
      const float value = fraction * static_cast<float>(std::pow(10.0, i - 6));
      map.push_back(value);
      map.push_back(-value);
    }
  }
  std::sort(map.begin(), map.end());
  return map;
}

/// \brief Index of the nearest entry of a sorted map, ties to the even index.
inline std::uint8_t encode8(const list<float>& map, float u) {
  index_t lower = 0;
  while (lower < 254 && map[lower + 1] <= u) ++lower;
  const float middle = midpoint(map[lower], map[lower + 1]);
  const bool up = u > middle || (u == middle && lower % 2 != 0);
  return static_cast<std::uint8_t>(up ? lower + 1 : lower);
}

/// \brief 8-bit codes of the deviations from `offset`, 256 to a block.
struct quantised8 {
  list<std::uint8_t> codes;
  list<float> absmax;
  float offset = 0;
};

inline constexpr index_t nested_block = 256;

/// \brief Second level of a double quantisation, with a given offset.
inline quantised8 quantise_scales(const list<float>& scales, float offset) {
  const list<float> map = dynamic_map();
  quantised8 q{list<std::uint8_t>(scales.count()), {}, offset};
  for (index_t begin = 0; begin < scales.count(); begin += nested_block) {
    const index_t end = std::min(begin + nested_block, scales.count());
    const bool whole = end - begin == nested_block;
    float largest = 0;
    for (index_t i = begin; i < end; ++i) largest = std::max(largest, std::fabs(scales[i] - offset));
    const float divisor = std::max(largest, 1e-38f);
    q.absmax.push_back(largest);
    for (index_t i = begin; i < end; ++i) {
      const float deviation = scales[i] - offset;
      q.codes[i] = encode8(map, whole ? deviation * (1 / divisor) : deviation / divisor);
    }
  }
  return q;
}

/// \brief Mean of the scales, summed in double and rounded once.
inline float mean_scale(const list<float>& scales) {
  double sum = 0;
  for (const float scale : scales) sum += static_cast<double>(scale);
  return static_cast<float>(sum / static_cast<double>(scales.count()));
}

inline quantised8 quantise_scales(const list<float>& scales) {
  return quantise_scales(scales, mean_scale(scales));
}

/// \brief map[code] * absmax + offset with both roundings.
inline list<float> restore_scales(const quantised8& q) {
  const list<float> map = dynamic_map();
  list<float> scales(q.codes.count());
  for (index_t i = 0; i < scales.count(); ++i)
    scales[i] = rounded_product(map[q.codes[i]], q.absmax[i / nested_block]) + q.offset;
  return scales;
}

}  // namespace reference
