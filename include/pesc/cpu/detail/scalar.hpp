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
#include "pesc/cpu/isa.hpp"
#include "pesc/quant/quantize.hpp"

// The portable kernels: the reference for the other instruction sets and the only ones on other processors.
// Four lanes in plain arrays, which compilers turn into whatever short vectors the target has.

namespace pesc::cpu {
inline namespace PESC_CPU_ABI {
namespace detail {
namespace scalar {

struct vec {
  float lane[4];
};

struct mask {
  bool lane[4];
};

namespace simd {

inline constexpr index_t width = 4;

template <class F>
inline vec lanes(F&& f) {
  return {{f(0), f(1), f(2), f(3)}};
}

inline vec set(float x) { return {{x, x, x, x}}; }
inline void prefetch(const void*) {}
inline vec iota() { return {{0, 1, 2, 3}}; }
inline vec zero() { return set(0.0f); }
inline vec broadcast(const float* p) { return set(*p); }
inline vec load(const float* p) { return {{p[0], p[1], p[2], p[3]}}; }
inline void store(float* p, const vec& x) {
  for (int i = 0; i < 4; ++i) p[i] = x.lane[i];
}
/// \brief The first `n` (at most `width`) lanes, zeros in the others.
inline vec load_n(const float* p, index_t n) {
  vec x = zero();
  for (index_t i = 0; i < n && i < width; ++i) x.lane[i] = p[i];
  return x;
}
inline void store_n(float* p, const vec& x, index_t n) {
  for (index_t i = 0; i < n && i < width; ++i) p[i] = x.lane[i];
}

inline vec add(const vec& a, const vec& b) {
  return lanes([&](int i) { return a.lane[i] + b.lane[i]; });
}
inline vec sub(const vec& a, const vec& b) {
  return lanes([&](int i) { return a.lane[i] - b.lane[i]; });
}
inline vec mul(const vec& a, const vec& b) {
  return lanes([&](int i) { return a.lane[i] * b.lane[i]; });
}
inline vec div(const vec& a, const vec& b) {
  return lanes([&](int i) { return a.lane[i] / b.lane[i]; });
}
inline vec sqrt(const vec& a) {
  return lanes([&](int i) { return std::sqrt(a.lane[i]); });
}
inline vec abs(const vec& a) {
  return lanes([&](int i) { return std::fabs(a.lane[i]); });
}
/// \brief a * b + c, fused where the target has it.
inline vec fmadd(const vec& a, const vec& b, const vec& c) {
  return lanes([&](int i) { return a.lane[i] * b.lane[i] + c.lane[i]; });
}
/// \brief c - a * b.
inline vec fnmadd(const vec& a, const vec& b, const vec& c) {
  return lanes([&](int i) { return c.lane[i] - a.lane[i] * b.lane[i]; });
}
/// \brief a * b + c with both roundings.
inline vec mul_then_add(const vec& a, const vec& b, const vec& c) {
  return lanes([&](int i) { return pesc::mul_then_add(a.lane[i], b.lane[i], c.lane[i]); });
}
/// \brief Larger value; `b` where one is NaN.
inline vec max(const vec& a, const vec& b) {
  return lanes([&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
}
inline vec min(const vec& a, const vec& b) {
  return lanes([&](int i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
}
/// \brief Nearest whole number, ties to even.
inline vec round(const vec& a) {
  return lanes([&](int i) { return std::nearbyint(a.lane[i]); });
}
/// \brief 2^n for whole n in [-126, 127].
inline vec exp2_int(const vec& n) {
  return lanes([&](int i) {
    return std::bit_cast<float>(static_cast<std::uint32_t>(static_cast<std::int32_t>(n.lane[i]) + 127) << 23);
  });
}
/// \brief Where a < b; false for NaN.
inline mask less(const vec& a, const vec& b) {
  return {{a.lane[0] < b.lane[0], a.lane[1] < b.lane[1], a.lane[2] < b.lane[2], a.lane[3] < b.lane[3]}};
}
/// \brief a where m, else b.
inline vec select(const mask& m, const vec& a, const vec& b) {
  return lanes([&](int i) { return m.lane[i] ? a.lane[i] : b.lane[i]; });
}
inline float reduce_add(const vec& a) { return (a.lane[0] + a.lane[2]) + (a.lane[1] + a.lane[3]); }
inline float reduce_max(const vec& a) {
  return std::max(std::max(a.lane[0], a.lane[1]), std::max(a.lane[2], a.lane[3]));
}

/// \brief `width` stored numbers as floats.
template <Scalar T>
inline vec load_as_float(const T* p) {
  return lanes([&](int i) { return to_float(p[i]); });
}
/// \brief `width` signed 8-bit codes as floats.
inline vec load_codes(const std::int8_t* p) {
  return lanes([&](int i) { return static_cast<float>(p[i]); });
}
/// \brief Rounds to nearest, ties to even.
template <Scalar T>
inline void store_as(T* p, const vec& x) {
  for (int i = 0; i < 4; ++i) p[i] = from_float<T>(x.lane[i]);
}
inline vec round_to_bf16(const vec& x) {
  return lanes([&](int i) { return to_float(to_bf16(x.lane[i])); });
}

inline void transpose(vec (&x)[4]) {
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < i; ++j) std::swap(x[i].lane[j], x[j].lane[i]);
}

}  // namespace simd

inline constexpr index_t block_rows = 4;
inline constexpr index_t fused_tokens = 1;
inline constexpr index_t fused_transposed_tokens = 1;
inline constexpr index_t fused_limit = 1;
inline constexpr index_t fused_transposed_limit = 1;

/// \brief Values of the 16 codes.
struct code_table {
  const float* levels;
  explicit code_table(const frozen_weight& w) : levels{w.levels.data()} {}
};

/// \brief 8 columns of `width` rows, whose codes lie together: w[k] holds column k.
inline void decode_rows(const std::uint8_t* codes, const code_table& table, vec (&w)[8]) {
  for (int k = 0; k < 8; ++k)
    w[k] = simd::lanes([&](int r) { return table.levels[codes[4 * r + k / 2] >> (k % 2 * 4) & 0x0F]; });
}

/// \brief `width` columns from `k` of 8 rows of a cell: w[r] holds row r.
inline void decode_cols(const std::uint8_t* codes, index_t row, index_t k, const code_table& table,
                        vec (&w)[8]) {
  for (index_t r = 0; r < 8; ++r)
    w[r] = simd::lanes([&](int i) {
      const std::uint8_t byte = codes[panel_layout::code_byte(row + r, k + i)];
      return table.levels[byte >> panel_layout::code_shift(k + i) & 0x0F];
    });
}

/// \brief 64 double-quantised scales: map * second-level scale, rounded, + offset.
inline void decode_nested(const std::uint8_t* codes, const frozen_weight& w, const float* nested,
                          float* out) {
  for (int r = 0; r < 64; ++r) out[r] = pesc::mul_then_add(w.map[codes[r]], nested[r], w.offset);
}

/// \brief 32 weights of 16 bytes in the order of checkpoints, first weight in the high nibble.
inline void decode_run(const std::uint8_t* codes, const code_table& table, vec (&w)[8]) {
  for (int i = 0; i < 8; ++i)
    w[i] =
        simd::lanes([&](int j) { return table.levels[codes[2 * i + j / 2] >> (j % 2 == 0 ? 4 : 0) & 0x0F]; });
}

/// \brief Finds the codes of scaled weights.
struct code_finder {
  const format_info& info;
  explicit code_finder(const format_info& format) : info{format} {}
};

/// \brief Codes of `width` scaled weights as bytes, first weight in the high nibble.
inline void encode_run(const vec& u, const code_finder& finder, std::uint8_t* codes) {
  for (int i = 0; i < 2; ++i)
    codes[i] = static_cast<std::uint8_t>(finder.info.encode(u.lane[2 * i]) << 4 |
                                         finder.info.encode(u.lane[2 * i + 1]));
}

// The order matters: each file uses the ones above it.
// clang-format off
#include "pesc/cpu/detail/matmul.inl"
#include "pesc/cpu/detail/nf4.inl"
#include "pesc/cpu/detail/fused_memory.inl"
#include "pesc/cpu/detail/fused.inl"
#include "pesc/cpu/detail/fused_transposed.inl"
#include "pesc/cpu/detail/frozen.inl"
#include "pesc/cpu/detail/quantize.inl"
// clang-format on

struct kernels : matmul_kernels, frozen_kernels, quantize_kernels {
  static constexpr isa level = isa::scalar;
  static constexpr index_t width = simd::width;
};

}  // namespace scalar
}  // namespace detail
}  // namespace PESC_CPU_ABI
}  // namespace pesc::cpu
