// SPDX-License-Identifier: Apache-2.0
// Included inside the region that multiplies pairs of bf16, after matmul.inl. A register of pairs passes as
// `vec`.

/// \brief sum += a.first * b.first + a.second * b.second in each lane.
struct pair_product {
  using element = std::uint32_t;
  [[gnu::always_inline]] static inline vec broadcast(const element* p) {
    return _mm512_castsi512_ps(_mm512_set1_epi32(static_cast<int>(*p)));
  }
  [[gnu::always_inline]] static inline vec load(const element* p) {
    return _mm512_castsi512_ps(_mm512_loadu_si512(p));
  }
  [[gnu::always_inline]] static inline vec multiply_add(vec a, vec b, vec c) {
    return _mm512_dpbf16_ps(c, (__m512bh)_mm512_castps_si512(a), (__m512bh)_mm512_castps_si512(b));
  }
};

/// \brief Levels as bf16, twice: an index has 5 bits here, and the fifth belongs to the neighbouring code.
struct pair_table {
  __m512i levels;

  [[gnu::always_inline]] explicit pair_table(const frozen_weight& w) {
    alignas(64) std::uint16_t twice[32];
    for (std::size_t i = 0; i < 32; ++i) twice[i] = to_bf16(w.levels[i % 16]).bits;
    levels = _mm512_load_si512(twice);
  }
};

/// \brief Columns (j, j + 4) of the 8 in a word: shifting its halves by 4 j brings both to the lowest bits.
struct fused_pairs : pair_product {
  using table = pair_table;
  static constexpr index_t steps = 4;  ///< elements of one token for 8 columns
  static float sum_of(element pair) {
    return std::bit_cast<float>(pair << 16) + std::bit_cast<float>(pair & 0xFFFF0000u);
  }

  template <std::size_t Step>
  [[gnu::always_inline]] static inline vec decode(__m512i codes, const pair_table& table) {
    const __m512i shifted = Step == 0 ? codes : _mm512_srli_epi16(codes, 4 * Step);
    return _mm512_castsi512_ps(_mm512_permutexvar_epi16(shifted, table.levels));
  }
};

/// \brief Two registers of floats rounded to the lower and upper halves of lanes.
[[gnu::always_inline]] inline vec make_pairs(vec first, vec second) {
  const __m512i upper =
      _mm512_and_si512(simd::bf16_bits(second), _mm512_set1_epi32(static_cast<int>(0xFFFF0000u)));
  return _mm512_castsi512_ps(_mm512_or_si512(_mm512_srli_epi32(simd::bf16_bits(first), 16), upper));
}

[[gnu::always_inline]] inline void store_pairs(float* out, index_t step, index_t steps, index_t tokens,
                                               vec pairs) {
  // A store of 16 lanes spills into later steps, which are written after it.
  if (step * tokens + simd::width <= steps * tokens)
    simd::store(out + step * tokens, pairs);
  else
    simd::store_n(out + step * tokens, pairs, tokens);
}

/// \brief Packs tokens as pairs, [k / 2][tokens]: columns (j, j + 4) of each 8, or neighbours.
inline void pack_pairs(const float* x, index_t x_stride, index_t tokens, index_t k_count, index_t k_padded,
                       bool four_apart, float* out) {
  for (index_t k = 0; k < k_padded; k += 16) {
    vec block[16];
    for (index_t r = 0; r < 16; ++r)
      block[r] = r >= tokens || k >= k_count ? simd::zero()
                 : k + 16 <= k_count         ? simd::load(x + r * x_stride + k)
                                             : simd::load_n(x + r * x_stride + k, k_count - k);
    simd::transpose(block);
    for (index_t i = 0; i < 8; ++i) {
      const index_t first = four_apart ? i / 4 * 8 + i % 4 : 2 * i;
      store_pairs(out, k / 2 + i, k_padded / 2, tokens,
                  make_pairs(block[first], block[first + (four_apart ? 4 : 1)]));
    }
  }
}

/// \brief Codes of a cell to scaled pairs of neighbouring rows, [32 pairs of rows][64 columns] in slivers.
template <int Count>
inline void decode_pairs(const std::uint8_t* codes, const avx512::code_table& table,
                         const cell_scales& scales, std::uint32_t* out, index_t sliver_stride) {
  const __m512i interleave = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8,
                                              23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  for (index_t row = 0; row < 64; row += 2)
    for (index_t k = 0; k < 64; k += 16) {
      const std::uint8_t* words = codes + k * 32 + row * 4;
      const vec first =
          simd::mul(avx512::decode_col(words, table), avx512::col_scales<Count>(scales, row, k));
      const vec second =
          simd::mul(avx512::decode_col(words + 4, table), avx512::col_scales<Count>(scales, row + 1, k));
      const __m512i halves = (__m512i)_mm512_cvtne2ps_pbh(second, first);
      _mm512_storeu_si512(out + k / sliver_cols * sliver_stride + row / 2 * sliver_cols + k % sliver_cols,
                          _mm512_permutexvar_epi16(interleave, halves));
    }
}
