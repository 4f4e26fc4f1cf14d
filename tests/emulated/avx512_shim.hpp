// SPDX-License-Identifier: Apache-2.0
#pragma once

// 512-bit instructions on machines without them: SIMDe under the names of the compiler's header, and below
// what the packaged version lacks. Include before any header of the library.

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

#include "pesc/core/types.hpp"

namespace emulated {

template <class T, class V>
std::array<T, sizeof(V) / sizeof(T)> lanes(const V& v) {
  std::array<T, sizeof(V) / sizeof(T)> out;
  std::memcpy(out.data(), &v, sizeof(V));
  return out;
}

template <class V, class T, std::size_t N>
V register_of(const std::array<T, N>& lanes) {
  static_assert(sizeof(V) == sizeof(lanes));
  V out;
  std::memcpy(&out, lanes.data(), sizeof(V));
  return out;
}

/// \brief Lane by lane from one type to another.
template <class To, class From, class V, class W, class F>
V map(const W& x, F f) {
  const auto in = lanes<From>(x);
  std::array<To, sizeof(V) / sizeof(To)> out{};
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = f(in[i]);
  return register_of<V>(out);
}

inline __m512i cvtps_epi32(__m512 x) {
  return map<std::int32_t, float, __m512i>(
      x, [](float v) { return static_cast<std::int32_t>(std::nearbyint(v)); });
}
inline __m512i cvtepu16_epi32(__m256i x) {
  return map<std::uint32_t, std::uint16_t, __m512i>(x, [](std::uint16_t v) { return std::uint32_t{v}; });
}
inline __m512i cvtepi8_epi32(__m128i x) {
  return map<std::int32_t, std::int8_t, __m512i>(register_of<__m512i>([&] {
                                                   std::array<std::int8_t, 64> wide{};
                                                   const auto narrow = lanes<std::int8_t>(x);
                                                   std::copy(narrow.begin(), narrow.end(), wide.begin());
                                                   return wide;
                                                 }()),
                                                 [](std::int8_t code) { return std::int32_t{code}; });
}
inline __m512 cvtepi32_ps(__m512i x) {
  return map<float, std::int32_t, __m512>(x, [](std::int32_t n) { return static_cast<float>(n); });
}
inline __m512i cvtepu8_epi64(__m128i x) {
  const auto bytes = lanes<std::uint8_t>(x);
  std::array<std::uint64_t, 8> out{};
  for (std::size_t i = 0; i < 8; ++i) out[i] = bytes[i];
  return register_of<__m512i>(out);
}
inline __m256i cvtepi32_epi16(__m512i x) {
  return map<std::uint16_t, std::uint32_t, __m256i>(
      x, [](std::uint32_t v) { return static_cast<std::uint16_t>(v); });
}
inline __m128i cvtepi64_epi8(__m512i x) {
  const auto in = lanes<std::uint64_t>(x);
  std::array<std::uint8_t, 16> out{};
  for (std::size_t i = 0; i < 8; ++i) out[i] = static_cast<std::uint8_t>(in[i]);
  return register_of<__m128i>(out);
}
inline __m256i cvtps_ph(__m512 x) {
  return map<std::uint16_t, float, __m256i>(x, [](float v) { return pesc::to_f16(v).bits; });
}
inline __m512 maskz_loadu_ps(__mmask16 m, const void* p) {
  std::array<float, 16> out{};
  for (std::size_t i = 0; i < 16; ++i)
    if ((m >> i & 1) != 0) std::memcpy(&out[i], static_cast<const float*>(p) + i, 4);
  return register_of<__m512>(out);
}
inline void mask_storeu_ps(void* p, __mmask16 m, __m512 x) {
  const auto in = lanes<float>(x);
  for (std::size_t i = 0; i < 16; ++i)
    if ((m >> i & 1) != 0) std::memcpy(static_cast<float*>(p) + i, &in[i], 4);
}
/// \brief As the instruction: `low` in the lower half.
inline __m512i cvtne2ps_pbh(__m512 high, __m512 low) {
  std::array<std::uint16_t, 32> out{};
  for (std::size_t i = 0; i < 16; ++i) {
    out[i] = pesc::to_bf16(lanes<float>(low)[i]).bits;
    out[16 + i] = pesc::to_bf16(lanes<float>(high)[i]).bits;
  }
  return register_of<__m512i>(out);
}
inline __m512 shuffle_f32x4(__m512 a, __m512 b, int order) {
  const auto x = lanes<float>(a), y = lanes<float>(b);
  std::array<float, 16> out{};
  for (std::size_t quarter = 0; quarter < 4; ++quarter)
    for (std::size_t i = 0; i < 4; ++i)
      out[4 * quarter + i] =
          (quarter < 2 ? x : y)[static_cast<std::size_t>(order >> 2 * quarter & 3) * 4 + i];
  return register_of<__m512>(out);
}

}  // namespace emulated

#undef _mm512_cvtps_ph
#define _mm512_cvtps_ph(x, rounding) emulated::cvtps_ph(x)
#undef _mm512_shuffle_f32x4
#define _mm512_shuffle_f32x4 emulated::shuffle_f32x4
#define _mm512_cvtps_epi32 emulated::cvtps_epi32
#define _mm512_cvtepu16_epi32 emulated::cvtepu16_epi32
#define _mm512_cvtepi8_epi32 emulated::cvtepi8_epi32
#define _mm512_cvtepi32_ps emulated::cvtepi32_ps
#define _mm512_cvtepu8_epi64 emulated::cvtepu8_epi64
#define _mm512_cvtepi64_epi8 emulated::cvtepi64_epi8
#define _mm512_cvtepi32_epi16 emulated::cvtepi32_epi16
#define _mm512_maskz_loadu_ps emulated::maskz_loadu_ps
#define _mm512_mask_storeu_ps emulated::mask_storeu_ps
#define _mm512_cvtne2ps_pbh emulated::cvtne2ps_pbh
