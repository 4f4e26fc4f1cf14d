// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "pesc/core/macros.hpp"

namespace pesc {

/// \brief Counts and positions; signed and 64 bits wide, so that differences and products of sizes are safe.
using index_t = std::int64_t;

/// \brief bfloat16 storage: the upper half of a float. Arithmetic happens in float.
struct bf16 {
  std::uint16_t bits = 0;
  friend constexpr bool operator==(bf16, bf16) = default;
};

/// \brief IEEE half-precision storage. Arithmetic happens in float.
struct f16 {
  std::uint16_t bits = 0;
  friend constexpr bool operator==(f16, f16) = default;
};

/// \brief Element types that tensors are stored in.
template <class T>
concept Scalar = std::same_as<T, float> || std::same_as<T, bf16> || std::same_as<T, f16>;

/// \brief How products are formed: `float` exactly, `bf16` from activations rounded to bfloat16 with float sums.
template <class T>
concept Compute = std::same_as<T, float> || std::same_as<T, bf16>;

PESC_HOST_DEVICE constexpr float to_float(float value) { return value; }

PESC_HOST_DEVICE constexpr float to_float(bf16 value) {
  return __builtin_bit_cast(float, static_cast<std::uint32_t>(value.bits) << 16);
}

PESC_HOST_DEVICE constexpr float to_float(f16 value) {
  const std::uint32_t sign = static_cast<std::uint32_t>(value.bits & 0x8000u) << 16;
  const std::uint32_t exponent = value.bits >> 10 & 0x1Fu;
  const std::uint32_t fraction = value.bits & 0x3FFu;
  if (exponent == 0x1Fu) return __builtin_bit_cast(float, sign | 0x7F800000u | fraction << 13);
  if (exponent == 0) {
    // Subnormal halves are normal floats: fraction * 2^-24 is exact.
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return sign != 0 ? -magnitude : magnitude;
  }
  return __builtin_bit_cast(float, sign | (exponent + 112) << 23 | fraction << 13);
}

/// \brief Rounds to nearest, ties to even; a NaN stays a (quiet) NaN.
PESC_HOST_DEVICE constexpr bf16 to_bf16(float value) {
  const std::uint32_t bits = __builtin_bit_cast(std::uint32_t, value);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return {static_cast<std::uint16_t>(bits >> 16 | 0x40u)};
  return {static_cast<std::uint16_t>((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16)};
}

/// \brief Rounds to nearest, ties to even; too large values become infinite, a NaN stays a NaN.
PESC_HOST_DEVICE constexpr f16 to_f16(float value) {
  const std::uint32_t bits = __builtin_bit_cast(std::uint32_t, value);
  const std::uint32_t sign = bits >> 16 & 0x8000u;
  const std::uint32_t magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return {static_cast<std::uint16_t>(sign | 0x7E00u)};
  if (magnitude >= 0x477FF000u) return {static_cast<std::uint16_t>(sign | 0x7C00u)};
  if (magnitude < 0x38800000u) {
    // Below the smallest normal half: adding 0.5 aligns the fraction and rounds it in one float addition.
    const float aligned = __builtin_bit_cast(float, magnitude) + 0.5f;
    return {static_cast<std::uint16_t>(sign | (__builtin_bit_cast(std::uint32_t, aligned) - 0x3F000000u))};
  }
  const std::uint32_t rounded = magnitude + 0xFFFu + (magnitude >> 13 & 1u);
  return {static_cast<std::uint16_t>(sign | (rounded - 0x38000000u) >> 13)};
}

/// \brief Value of `value` stored as `T`.
template <Scalar T>
PESC_HOST_DEVICE constexpr T from_float(float value) {
  if constexpr (std::is_same_v<T, bf16>)
    return to_bf16(value);
  else if constexpr (std::is_same_v<T, f16>)
    return to_f16(value);
  else
    return value;
}

/// \brief `a * b + c` with both roundings, for formulas whose bits a file format fixes.
///
/// Compilers contract the plain expression to one fused operation where the target has one.
PESC_HOST_DEVICE inline float mul_then_add(float a, float b, float c) {
#if defined(__CUDA_ARCH__)
  return __fadd_rn(__fmul_rn(a, b), c);
#else
  float product = a * b;
#if defined(__x86_64__)
  asm("" : "+x"(product));
#elif defined(__aarch64__)
  asm("" : "+w"(product));
#else
  asm("" : "+m"(product));
#endif
  return product + c;
#endif
}

/// \brief `a / b` rounded up, for non-negative `a` and positive `b`.
PESC_HOST_DEVICE constexpr index_t ceil_div(index_t a, index_t b) { return (a + b - 1) / b; }

/// \brief `a` rounded up to a multiple of `b`.
PESC_HOST_DEVICE constexpr index_t round_up(index_t a, index_t b) { return ceil_div(a, b) * b; }

}  // namespace pesc
