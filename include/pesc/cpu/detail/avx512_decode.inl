// SPDX-License-Identifier: Apache-2.0
// Included inside the regions of the 512-bit instruction sets, after `vec` and `simd`.

/// \brief Values of the 16 codes: one register, looked up by permutation.
struct code_table {
  __m512 levels;
  [[gnu::always_inline]] explicit code_table(const frozen_weight& w) : levels{_mm512_load_ps(w.levels.data())} {}
};

/// \brief Column K of the 16 rows in `codes`; the permutation reads bits 0 to 3 of each lane only.
template <int K>
[[gnu::always_inline]] inline vec decode_column(__m512i codes, __m512 levels) {
  return _mm512_permutexvar_ps(K == 0 ? codes : _mm512_srli_epi32(codes, 4 * K), levels);
}

/// \brief 8 columns of 16 rows, whose codes lie together: w[k] holds column k.
[[gnu::always_inline]] inline void decode_rows(const std::uint8_t* codes, const code_table& table, vec (&w)[8]) {
  const __m512i v = _mm512_loadu_si512(codes);
  w[0] = decode_column<0>(v, table.levels);
  w[1] = decode_column<1>(v, table.levels);
  w[2] = decode_column<2>(v, table.levels);
  w[3] = decode_column<3>(v, table.levels);
  w[4] = decode_column<4>(v, table.levels);
  w[5] = decode_column<5>(v, table.levels);
  w[6] = decode_column<6>(v, table.levels);
  w[7] = decode_column<7>(v, table.levels);
}

/// \brief 16 columns from `k` of one row: its two words, each in 8 lanes that shift to their own nibble.
[[gnu::always_inline]] inline vec decode_col(const std::uint8_t* word, const code_table& table) {
  int first, second;
  std::memcpy(&first, word, 4);
  std::memcpy(&second, word + 256, 4);
  const __m512i shifts = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28);
  const __m512i words = _mm512_mask_set1_epi32(_mm512_set1_epi32(first), 0xFF00, second);
  return _mm512_permutexvar_ps(_mm512_srlv_epi32(words, shifts), table.levels);
}

/// \brief 16 columns from `k` of 8 rows of a cell: w[r] holds row r.
[[gnu::always_inline]] inline void decode_cols(const std::uint8_t* codes, index_t row, index_t k,
                                               const code_table& table, vec (&w)[8]) {
  const std::uint8_t* words = codes + k * 32 + row * 4;
  for (int r = 0; r < 8; ++r) w[r] = decode_col(words + 4 * r, table);
}

/// \brief 32 weights of 16 bytes in the order of checkpoints, first weight in the high nibble.
[[gnu::always_inline]] inline void decode_run(const std::uint8_t* codes, const code_table& table, vec (&w)[2]) {
  const __m512i shifts = _mm512_setr_epi32(4, 0, 4, 0, 4, 0, 4, 0, 4, 0, 4, 0, 4, 0, 4, 0);
  for (int i = 0; i < 2; ++i) {
    const __m512i bytes =
        _mm512_cvtepu8_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes + 8 * i)));
    const __m512i twice = _mm512_or_si512(bytes, _mm512_slli_epi64(bytes, 32));
    w[i] = _mm512_permutexvar_ps(_mm512_srlv_epi32(twice, shifts), table.levels);
  }
}
