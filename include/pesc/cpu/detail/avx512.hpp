// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

#include "pesc/core/types.hpp"
#include "pesc/cpu/detail/blocks.hpp"
#include "pesc/cpu/detail/frozen_weight.hpp"
#include "pesc/cpu/detail/x86.hpp"
#include "pesc/cpu/isa.hpp"
#include "pesc/quant/quantize.hpp"

PESC_TARGET_BEGIN("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")

namespace pesc::cpu {
inline namespace PESC_CPU_ABI {
namespace detail {
namespace avx512 {

using vec = __m512;
using mask = __mmask16;

namespace simd {

inline constexpr index_t width = 16;

[[gnu::always_inline]] inline vec set(float x) { return _mm512_set1_ps(x); }
[[gnu::always_inline]] inline void prefetch(const void* p) {
  _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0);
}
[[gnu::always_inline]] inline vec iota() {
  return _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}
[[gnu::always_inline]] inline vec zero() { return _mm512_setzero_ps(); }
[[gnu::always_inline]] inline vec broadcast(const float* p) { return _mm512_set1_ps(*p); }
[[gnu::always_inline]] inline vec load(const float* p) { return _mm512_loadu_ps(p); }
[[gnu::always_inline]] inline void store(float* p, vec x) { _mm512_storeu_ps(p, x); }

[[gnu::always_inline]] inline mask first_lanes(index_t n) {
  return static_cast<mask>(n >= width ? 0xFFFFu : (1u << n) - 1u);
}
/// \brief The first `n` (at most `width`) lanes, zeros in the others.
[[gnu::always_inline]] inline vec load_n(const float* p, index_t n) {
  return _mm512_maskz_loadu_ps(first_lanes(n), p);
}
[[gnu::always_inline]] inline void store_n(float* p, vec x, index_t n) {
  _mm512_mask_storeu_ps(p, first_lanes(n), x);
}

[[gnu::always_inline]] inline vec add(vec a, vec b) { return _mm512_add_ps(a, b); }
[[gnu::always_inline]] inline vec sub(vec a, vec b) { return _mm512_sub_ps(a, b); }
[[gnu::always_inline]] inline vec mul(vec a, vec b) { return _mm512_mul_ps(a, b); }
[[gnu::always_inline]] inline vec div(vec a, vec b) { return _mm512_div_ps(a, b); }
[[gnu::always_inline]] inline vec sqrt(vec a) { return _mm512_sqrt_ps(a); }
[[gnu::always_inline]] inline vec abs(vec a) {
  return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(a), _mm512_set1_epi32(0x7FFFFFFF)));
}
[[gnu::always_inline]] inline vec fmadd(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
[[gnu::always_inline]] inline vec fnmadd(vec a, vec b, vec c) { return _mm512_fnmadd_ps(a, b, c); }
/// \brief a * b + c with both roundings: without the barrier compilers fuse them.
[[gnu::always_inline]] inline vec mul_then_add(vec a, vec b, vec c) {
  vec product = _mm512_mul_ps(a, b);
#if !defined(PESC_EMULATE_AVX512)
  asm("" : "+v"(product));
#endif
  return _mm512_add_ps(product, c);
}
[[gnu::always_inline]] inline vec max(vec a, vec b) { return _mm512_max_ps(a, b); }
[[gnu::always_inline]] inline vec min(vec a, vec b) { return _mm512_min_ps(a, b); }
[[gnu::always_inline]] inline vec round(vec a) {
  return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
/// \brief 2^n for whole n in [-126, 127].
[[gnu::always_inline]] inline vec exp2_int(vec n) {
  return _mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23));
}
[[gnu::always_inline]] inline mask less(vec a, vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
[[gnu::always_inline]] inline vec select(mask m, vec a, vec b) { return _mm512_mask_blend_ps(m, b, a); }
// Own reductions: those of the compiler's header cause false warnings about uninitialised values.
[[gnu::always_inline]] inline __m256 upper_half(vec a) {
  return _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(a), 1));
}
[[gnu::always_inline]] inline float reduce_add(vec a) {
  const __m256 h = _mm256_add_ps(_mm512_castps512_ps256(a), upper_half(a));
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
[[gnu::always_inline]] inline float reduce_max(vec a) {
  const __m256 h = _mm256_max_ps(_mm512_castps512_ps256(a), upper_half(a));
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

/// \brief Bits of the nearest bf16, ties to even, in the upper half of each lane; a NaN becomes quiet.
[[gnu::always_inline]] inline __m512i bf16_bits(vec x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7FFF)), odd);
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  return _mm512_mask_blend_epi32(_mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), rounded, quiet);
}
[[gnu::always_inline]] inline vec round_to_bf16(vec x) {
  return _mm512_castsi512_ps(
      _mm512_and_si512(bf16_bits(x), _mm512_set1_epi32(static_cast<int>(0xFFFF0000u))));
}

/// \brief `width` stored numbers as floats, the bits of `to_float`.
template <Scalar T>
[[gnu::always_inline]] inline vec load_as_float(const T* p) {
  if constexpr (std::is_same_v<T, float>) {
    return load(p);
  } else {
    const __m512i bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    if constexpr (std::is_same_v<T, bf16>) {
      return _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
    } else {
      // The exponent bias differs by 112, which a multiplication adds for subnormal halves too.
      const __m512i magnitude = _mm512_slli_epi32(_mm512_and_si512(bits, _mm512_set1_epi32(0x7FFF)), 13);
      const __m512i sign = _mm512_slli_epi32(_mm512_and_si512(bits, _mm512_set1_epi32(0x8000)), 16);
      const __m512 scaled = _mm512_mul_ps(_mm512_castsi512_ps(magnitude), _mm512_set1_ps(0x1p112f));
      const mask special = _mm512_cmpgt_epi32_mask(magnitude, _mm512_set1_epi32(0x0F7FFFFF));
      const __m512i infinite = _mm512_or_si512(magnitude, _mm512_set1_epi32(0x7F800000));
      const __m512i value = _mm512_mask_blend_epi32(special, _mm512_castps_si512(scaled), infinite);
      return _mm512_castsi512_ps(_mm512_or_si512(value, sign));
    }
  }
}
/// \brief `width` signed 8-bit codes as floats.
[[gnu::always_inline]] inline vec load_codes(const std::int8_t* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
/// \brief Rounds to nearest, ties to even, the bits of `from_float`.
template <Scalar T>
[[gnu::always_inline]] inline void store_as(T* p, vec x) {
  if constexpr (std::is_same_v<T, float>) {
    store(p, x);
  } else if constexpr (std::is_same_v<T, bf16>) {
    const __m256i half = _mm512_cvtepi32_epi16(_mm512_srli_epi32(bf16_bits(x), 16));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), half);
  } else {
    const __m512i sign =
        _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(static_cast<int>(0x80000000u)));
    const __m512i quiet = _mm512_or_si512(sign, _mm512_set1_epi32(0x7FC00000));
    const vec value =
        _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), x, _mm512_castsi512_ps(quiet));
    const __m256i half = _mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), half);
  }
}

[[gnu::always_inline]] inline void transpose(vec (&x)[16]) {
  vec a[16];
  for (int i = 0; i < 16; i += 2) {
    a[i] = _mm512_unpacklo_ps(x[i], x[i + 1]);
    a[i + 1] = _mm512_unpackhi_ps(x[i], x[i + 1]);
  }
  vec b[16];
  for (int i = 0; i < 16; i += 4)
    for (int j = 0; j < 2; ++j) {
      b[i + 2 * j] = _mm512_shuffle_ps(a[i + j], a[i + j + 2], 0x44);
      b[i + 2 * j + 1] = _mm512_shuffle_ps(a[i + j], a[i + j + 2], 0xEE);
    }
  // b[4 q + c] holds in its quarter p column 4 p + c of rows 4 q to 4 q + 3.
  for (int c = 0; c < 4; ++c) {
    const vec low0 = _mm512_shuffle_f32x4(b[c], b[4 + c], 0x88);
    const vec low1 = _mm512_shuffle_f32x4(b[8 + c], b[12 + c], 0x88);
    const vec high0 = _mm512_shuffle_f32x4(b[c], b[4 + c], 0xDD);
    const vec high1 = _mm512_shuffle_f32x4(b[8 + c], b[12 + c], 0xDD);
    x[c] = _mm512_shuffle_f32x4(low0, low1, 0x88);
    x[8 + c] = _mm512_shuffle_f32x4(low0, low1, 0xDD);
    x[4 + c] = _mm512_shuffle_f32x4(high0, high1, 0x88);
    x[12 + c] = _mm512_shuffle_f32x4(high0, high1, 0xDD);
  }
}

}  // namespace simd

// 12 rows by 2 vectors: 24 sums and 2 weights; the broadcast is a memory operand.
inline constexpr index_t block_rows = 12;
inline constexpr index_t fused_tokens = 4;
inline constexpr index_t fused_transposed_tokens = 2;
inline constexpr index_t fused_limit = 256;
inline constexpr index_t fused_transposed_limit = 6;

// The order matters: each file uses the ones above it.
// clang-format off
#include "pesc/cpu/detail/avx512_decode.inl"
#include "pesc/cpu/detail/matmul.inl"
#include "pesc/cpu/detail/nf4.inl"
#include "pesc/cpu/detail/fused_registers.inl"
#include "pesc/cpu/detail/fused_registers_float.inl"
#include "pesc/cpu/detail/fused.inl"
#include "pesc/cpu/detail/fused_transposed.inl"
#include "pesc/cpu/detail/frozen.inl"
#include "pesc/cpu/detail/quantize.inl"
// clang-format on

struct kernels : matmul_kernels, frozen_kernels, quantize_kernels {
  static constexpr isa level = isa::avx512;
  static constexpr index_t width = simd::width;
};

}  // namespace avx512
}  // namespace detail
}  // namespace PESC_CPU_ABI
}  // namespace pesc::cpu

PESC_TARGET_END
