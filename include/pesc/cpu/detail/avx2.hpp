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

#if !defined(PESC_EMULATE_AVX512)

PESC_TARGET_BEGIN("avx2,fma,f16c")

namespace pesc::cpu {
inline namespace PESC_CPU_ABI {
namespace detail {
namespace avx2 {

using vec = __m256;
using mask = __m256;

namespace simd {

inline constexpr index_t width = 8;

[[gnu::always_inline]] inline vec set(float x) { return _mm256_set1_ps(x); }
[[gnu::always_inline]] inline void prefetch(const void* p) {
  _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0);
}
[[gnu::always_inline]] inline vec iota() { return _mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7); }
[[gnu::always_inline]] inline vec zero() { return _mm256_setzero_ps(); }
// The builtin keeps the compiler from joining neighbouring broadcasts into a load and permutes.
[[gnu::always_inline]] inline vec broadcast(const float* p) { return _mm256_broadcast_ss(p); }
[[gnu::always_inline]] inline vec load(const float* p) { return _mm256_loadu_ps(p); }
[[gnu::always_inline]] inline void store(float* p, vec x) { _mm256_storeu_ps(p, x); }

[[gnu::always_inline]] inline __m256i first_lanes(index_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(std::min<index_t>(n, width))),
                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
/// \brief The first `n` (at most `width`) lanes, zeros in the others.
[[gnu::always_inline]] inline vec load_n(const float* p, index_t n) {
  return _mm256_maskload_ps(p, first_lanes(n));
}
[[gnu::always_inline]] inline void store_n(float* p, vec x, index_t n) {
  _mm256_maskstore_ps(p, first_lanes(n), x);
}

[[gnu::always_inline]] inline vec add(vec a, vec b) { return _mm256_add_ps(a, b); }
[[gnu::always_inline]] inline vec sub(vec a, vec b) { return _mm256_sub_ps(a, b); }
[[gnu::always_inline]] inline vec mul(vec a, vec b) { return _mm256_mul_ps(a, b); }
[[gnu::always_inline]] inline vec div(vec a, vec b) { return _mm256_div_ps(a, b); }
[[gnu::always_inline]] inline vec sqrt(vec a) { return _mm256_sqrt_ps(a); }
[[gnu::always_inline]] inline vec abs(vec a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
[[gnu::always_inline]] inline vec fmadd(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
[[gnu::always_inline]] inline vec fnmadd(vec a, vec b, vec c) { return _mm256_fnmadd_ps(a, b, c); }
/// \brief a * b + c with both roundings: without the barrier compilers fuse them.
[[gnu::always_inline]] inline vec mul_then_add(vec a, vec b, vec c) {
  vec product = _mm256_mul_ps(a, b);
  asm("" : "+x"(product));
  return _mm256_add_ps(product, c);
}
[[gnu::always_inline]] inline vec max(vec a, vec b) { return _mm256_max_ps(a, b); }
[[gnu::always_inline]] inline vec min(vec a, vec b) { return _mm256_min_ps(a, b); }
[[gnu::always_inline]] inline vec round(vec a) {
  return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
/// \brief 2^n for whole n in [-126, 127].
[[gnu::always_inline]] inline vec exp2_int(vec n) {
  return _mm256_castsi256_ps(
      _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
}
[[gnu::always_inline]] inline mask less(vec a, vec b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
[[gnu::always_inline]] inline vec select(mask m, vec a, vec b) { return _mm256_blendv_ps(b, a, m); }
[[gnu::always_inline]] inline float reduce_add(vec a) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
[[gnu::always_inline]] inline float reduce_max(vec a) {
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

/// \brief Bits of the nearest bf16, ties to even, in the upper half of each lane; a NaN becomes quiet.
[[gnu::always_inline]] inline __m256i bf16_bits(vec x) {
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7FFF)), odd);
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256 nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
  return _mm256_blendv_epi8(rounded, quiet, _mm256_castps_si256(nan));
}
[[gnu::always_inline]] inline vec round_to_bf16(vec x) {
  return _mm256_castsi256_ps(
      _mm256_and_si256(bf16_bits(x), _mm256_set1_epi32(static_cast<int>(0xFFFF0000u))));
}

/// \brief `width` stored numbers as floats, the bits of `to_float`.
template <Scalar T>
[[gnu::always_inline]] inline vec load_as_float(const T* p) {
  if constexpr (std::is_same_v<T, float>) {
    return load(p);
  } else {
    const __m256i bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    if constexpr (std::is_same_v<T, bf16>) {
      return _mm256_castsi256_ps(_mm256_slli_epi32(bits, 16));
    } else {
      // The exponent bias differs by 112, which a multiplication adds for subnormal halves too.
      const __m256i magnitude = _mm256_slli_epi32(_mm256_and_si256(bits, _mm256_set1_epi32(0x7FFF)), 13);
      const __m256i sign = _mm256_slli_epi32(_mm256_and_si256(bits, _mm256_set1_epi32(0x8000)), 16);
      const __m256 scaled = _mm256_mul_ps(_mm256_castsi256_ps(magnitude), _mm256_set1_ps(0x1p112f));
      const __m256i special = _mm256_cmpgt_epi32(magnitude, _mm256_set1_epi32(0x0F7FFFFF));
      const __m256i infinite = _mm256_or_si256(magnitude, _mm256_set1_epi32(0x7F800000));
      const __m256i value = _mm256_blendv_epi8(_mm256_castps_si256(scaled), infinite, special);
      return _mm256_castsi256_ps(_mm256_or_si256(value, sign));
    }
  }
}
/// \brief `width` signed 8-bit codes as floats.
[[gnu::always_inline]] inline vec load_codes(const std::int8_t* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}
/// \brief Rounds to nearest, ties to even, the bits of `from_float`.
template <Scalar T>
[[gnu::always_inline]] inline void store_as(T* p, vec x) {
  if constexpr (std::is_same_v<T, float>) {
    store(p, x);
  } else if constexpr (std::is_same_v<T, bf16>) {
    const __m256i high = _mm256_srli_epi32(bf16_bits(x), 16);
    const __m256i packed = _mm256_packus_epi32(high, high);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                     _mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08)));
  } else {
    const __m256 sign = _mm256_and_ps(x, _mm256_set1_ps(-0.0f));
    const __m256 quiet = _mm256_or_ps(sign, _mm256_castsi256_ps(_mm256_set1_epi32(0x7FC00000)));
    const __m256 value = _mm256_blendv_ps(x, quiet, _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
  }
}

[[gnu::always_inline]] inline void transpose(vec (&x)[8]) {
  vec a[8];
  for (int i = 0; i < 8; i += 2) {
    a[i] = _mm256_unpacklo_ps(x[i], x[i + 1]);
    a[i + 1] = _mm256_unpackhi_ps(x[i], x[i + 1]);
  }
  vec b[8];
  for (int i = 0; i < 8; i += 4)
    for (int j = 0; j < 2; ++j) {
      b[i + 2 * j] = _mm256_shuffle_ps(a[i + j], a[i + j + 2], 0x44);
      b[i + 2 * j + 1] = _mm256_shuffle_ps(a[i + j], a[i + j + 2], 0xEE);
    }
  for (int i = 0; i < 4; ++i) {
    x[i] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x20);
    x[i + 4] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x31);
  }
}

}  // namespace simd

// 5 rows by 2 vectors: 10 sums, 2 weights and a broadcast fit 16 registers.
inline constexpr index_t block_rows = 5;
inline constexpr index_t fused_tokens = 3;
inline constexpr index_t fused_transposed_tokens = 2;
inline constexpr index_t fused_limit = 3;
inline constexpr index_t fused_transposed_limit = 2;

// The order matters: each file uses the ones above it.
// clang-format off
#include "pesc/cpu/detail/avx2_decode.inl"
#include "pesc/cpu/detail/matmul.inl"
#include "pesc/cpu/detail/nf4.inl"
#include "pesc/cpu/detail/fused_memory.inl"
#include "pesc/cpu/detail/fused.inl"
#include "pesc/cpu/detail/fused_transposed.inl"
#include "pesc/cpu/detail/frozen.inl"
#include "pesc/cpu/detail/quantize.inl"
// clang-format on

struct kernels : matmul_kernels, frozen_kernels, quantize_kernels {
  static constexpr isa level = isa::avx2;
  static constexpr index_t width = simd::width;
};

}  // namespace avx2
}  // namespace detail
}  // namespace PESC_CPU_ABI
}  // namespace pesc::cpu

PESC_TARGET_END

#endif
