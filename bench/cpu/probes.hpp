// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <chrono>
#include <vector>

#include <time.h>

#include "pesc/core/types.hpp"
#include "pesc/cpu/detail/x86.hpp"
#include "pesc/cpu/isa.hpp"

// What the processor can do at this moment, measured between the runs of a benchmark: shared machines change
// their speed from minute to minute, so only ratios to a probe of the same minute mean something.

namespace bench {

using pesc::index_t;
using pesc::cpu::isa;

/// \brief Seconds that a clock of the system shows.
inline double seconds_of(clockid_t clock) {
  timespec t{};
  clock_gettime(clock, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

/// \brief Seconds of processor time of all threads: waiting for a core that others use is not counted.
inline double cpu_seconds() { return seconds_of(CLOCK_PROCESS_CPUTIME_ID); }

/// \brief Seconds of processor time of this thread alone: a pool's threads may still be spinning.
inline double thread_seconds() { return seconds_of(CLOCK_THREAD_CPUTIME_ID); }

inline double median(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

/// \brief Keeps a value alive without storing it.
template <class T>
void keep(const T& value) {
  asm volatile("" : : "g"(&value) : "memory");
}

/// \brief Sum of plain floats, in the plainest loop: the probes of processors without the kernels below.
inline void read_scalar(const float* p, index_t n) {
  float sum[8] = {};
  for (index_t i = 0; i + 8 <= n; i += 8)
    for (int j = 0; j < 8; ++j) sum[j] += p[i + j];
  keep(sum);
}

inline void multiply_scalar(index_t rounds) {
  float sum[16] = {};
  float factor = 0.999f;
  asm volatile("" : "+m"(factor));
  for (index_t i = 0; i < rounds; ++i)
    for (float& s : sum) s = s * factor + 1.0f;
  keep(sum);
}

#if PESC_HAS_X86_KERNELS

PESC_TARGET_BEGIN("avx2,fma")

inline void read_avx2(const float* p, index_t n) {
  __m256i sum[4] = {};
  for (index_t i = 0; i + 32 <= n; i += 32)
    for (int j = 0; j < 4; ++j)
      sum[j] = _mm256_xor_si256(sum[j], _mm256_load_si256(reinterpret_cast<const __m256i*>(p + i + 8 * j)));
  keep(sum);
}

/// \brief 10 independent fused products a round.
inline void multiply_avx2(index_t rounds) {
  __m256 a0 = _mm256_set1_ps(0.0f), a1 = _mm256_set1_ps(0.1f), a2 = _mm256_set1_ps(0.2f),
         a3 = _mm256_set1_ps(0.3f);
  __m256 a4 = _mm256_set1_ps(0.4f), a5 = _mm256_set1_ps(0.5f), a6 = _mm256_set1_ps(0.6f),
         a7 = _mm256_set1_ps(0.7f);
  __m256 a8 = _mm256_set1_ps(0.8f), a9 = _mm256_set1_ps(0.9f);
  const __m256 f = _mm256_set1_ps(0.999f);
  for (index_t i = 0; i < rounds; ++i) {
    a0 = _mm256_fmadd_ps(a0, f, f), a1 = _mm256_fmadd_ps(a1, f, f), a2 = _mm256_fmadd_ps(a2, f, f);
    a3 = _mm256_fmadd_ps(a3, f, f), a4 = _mm256_fmadd_ps(a4, f, f), a5 = _mm256_fmadd_ps(a5, f, f);
    a6 = _mm256_fmadd_ps(a6, f, f), a7 = _mm256_fmadd_ps(a7, f, f), a8 = _mm256_fmadd_ps(a8, f, f);
    a9 = _mm256_fmadd_ps(a9, f, f);
  }
  const __m256 sums[10] = {a0, a1, a2, a3, a4, a5, a6, a7, a8, a9};
  keep(sums);
}

PESC_TARGET_END

PESC_TARGET_BEGIN("avx512f,avx512bw,avx512vl,avx512bf16")

inline void read_avx512(const float* p, index_t n) {
  __m512i s0 = _mm512_setzero_si512(), s1 = s0, s2 = s0, s3 = s0;
  for (index_t i = 0; i + 64 <= n; i += 64) {
    s0 = _mm512_xor_si512(s0, _mm512_load_si512(p + i));
    s1 = _mm512_xor_si512(s1, _mm512_load_si512(p + i + 16));
    s2 = _mm512_xor_si512(s2, _mm512_load_si512(p + i + 32));
    s3 = _mm512_xor_si512(s3, _mm512_load_si512(p + i + 48));
  }
  const __m512i sums[4] = {s0, s1, s2, s3};
  keep(sums);
}

/// \brief 10 independent fused products a round.
inline void multiply_avx512(index_t rounds) {
  __m512 a0 = _mm512_set1_ps(0.0f), a1 = _mm512_set1_ps(0.1f), a2 = _mm512_set1_ps(0.2f),
         a3 = _mm512_set1_ps(0.3f);
  __m512 a4 = _mm512_set1_ps(0.4f), a5 = _mm512_set1_ps(0.5f), a6 = _mm512_set1_ps(0.6f),
         a7 = _mm512_set1_ps(0.7f);
  __m512 a8 = _mm512_set1_ps(0.8f), a9 = _mm512_set1_ps(0.9f);
  const __m512 f = _mm512_set1_ps(0.999f);
  for (index_t i = 0; i < rounds; ++i) {
    a0 = _mm512_fmadd_ps(a0, f, f), a1 = _mm512_fmadd_ps(a1, f, f), a2 = _mm512_fmadd_ps(a2, f, f);
    a3 = _mm512_fmadd_ps(a3, f, f), a4 = _mm512_fmadd_ps(a4, f, f), a5 = _mm512_fmadd_ps(a5, f, f);
    a6 = _mm512_fmadd_ps(a6, f, f), a7 = _mm512_fmadd_ps(a7, f, f), a8 = _mm512_fmadd_ps(a8, f, f);
    a9 = _mm512_fmadd_ps(a9, f, f);
  }
  const __m512 sums[10] = {a0, a1, a2, a3, a4, a5, a6, a7, a8, a9};
  keep(sums);
}

inline void multiply_bf16(index_t rounds) {
  __m512 a0 = _mm512_set1_ps(0.0f), a1 = _mm512_set1_ps(0.1f), a2 = _mm512_set1_ps(0.2f),
         a3 = _mm512_set1_ps(0.3f);
  __m512 a4 = _mm512_set1_ps(0.4f), a5 = _mm512_set1_ps(0.5f), a6 = _mm512_set1_ps(0.6f),
         a7 = _mm512_set1_ps(0.7f);
  __m512 a8 = _mm512_set1_ps(0.8f), a9 = _mm512_set1_ps(0.9f);
  const __m512bh f = (__m512bh)_mm512_set1_epi16(0x3F00);
  for (index_t i = 0; i < rounds; ++i) {
    a0 = _mm512_dpbf16_ps(a0, f, f), a1 = _mm512_dpbf16_ps(a1, f, f), a2 = _mm512_dpbf16_ps(a2, f, f);
    a3 = _mm512_dpbf16_ps(a3, f, f), a4 = _mm512_dpbf16_ps(a4, f, f), a5 = _mm512_dpbf16_ps(a5, f, f);
    a6 = _mm512_dpbf16_ps(a6, f, f), a7 = _mm512_dpbf16_ps(a7, f, f), a8 = _mm512_dpbf16_ps(a8, f, f);
    a9 = _mm512_dpbf16_ps(a9, f, f);
  }
  const __m512 sums[10] = {a0, a1, a2, a3, a4, a5, a6, a7, a8, a9};
  keep(sums);
}

PESC_TARGET_END

#endif

/// \brief FLOP/s of one thread that multiplies in registers only; `bf16` asks for the products of that type.
inline double multiply_peak(isa level, bool bf16) {
  constexpr index_t rounds = 100000;
  double flop = 2.0 * 16 * static_cast<double>(rounds);
  const double begin = thread_seconds();
#if PESC_HAS_X86_KERNELS
  if (level == isa::avx512_bf16 && bf16) {
    multiply_bf16(rounds);
    flop = 2.0 * 10 * 32 * static_cast<double>(rounds);
  } else if (level >= isa::avx512) {
    multiply_avx512(rounds);
    flop = 2.0 * 10 * 16 * static_cast<double>(rounds);
  } else if (level == isa::avx2) {
    multiply_avx2(rounds);
    flop = 2.0 * 10 * 8 * static_cast<double>(rounds);
  } else
#endif
    multiply_scalar(rounds);
  return flop / (thread_seconds() - begin);
}

/// \brief Reads `n` floats once.
inline void read_memory(isa level, const float* p, index_t n) {
#if PESC_HAS_X86_KERNELS
  if (level >= isa::avx512) return read_avx512(p, n);
  if (level == isa::avx2) return read_avx2(p, n);
#endif
  read_scalar(p, n);
}

}  // namespace bench
