// SPDX-License-Identifier: Apache-2.0
// Included inside the regions of the 512-bit instruction sets, after `vec` and `simd`.

/// \brief Values of the 16 codes: one register, looked up by permutation.
struct code_table {
  __m512 levels;
  [[gnu::always_inline]] explicit code_table(const frozen_weight& w)
      : levels{_mm512_load_ps(w.levels.data())} {}
};

/// \brief Column K of the 16 rows in `codes`; the permutation reads bits 0 to 3 of each lane only.
template <int K>
[[gnu::always_inline]] inline vec decode_column(__m512i codes, __m512 levels) {
  return _mm512_permutexvar_ps(K == 0 ? codes : _mm512_srli_epi32(codes, 4 * K), levels);
}

/// \brief 8 columns of 16 rows, whose codes lie together: w[k] holds column k.
[[gnu::always_inline]] inline void decode_rows(const std::uint8_t* codes, const code_table& table,
                                               vec (&w)[8]) {
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
  w[0] = decode_col(words, table);
  w[1] = decode_col(words + 4, table);
  w[2] = decode_col(words + 8, table);
  w[3] = decode_col(words + 12, table);
  w[4] = decode_col(words + 16, table);
  w[5] = decode_col(words + 20, table);
  w[6] = decode_col(words + 24, table);
  w[7] = decode_col(words + 28, table);
}

/// \brief 32 weights of 16 bytes in the order of checkpoints, first weight in the high nibble.
[[gnu::always_inline]] inline void decode_run(const std::uint8_t* codes, const code_table& table,
                                              vec (&w)[2]) {
  const __m512i shifts = _mm512_setr_epi32(4, 0, 4, 0, 4, 0, 4, 0, 4, 0, 4, 0, 4, 0, 4, 0);
  for (int i = 0; i < 2; ++i) {
    const __m512i bytes =
        _mm512_cvtepu8_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes + 8 * i)));
    const __m512i twice = _mm512_or_si512(bytes, _mm512_slli_epi64(bytes, 32));
    w[i] = _mm512_permutexvar_ps(_mm512_srlv_epi32(twice, shifts), table.levels);
  }
}

/// \brief For each place of four interleaved registers, the row whose code has to lie there.
struct byte_order {
  alignas(64) std::array<std::uint8_t, 64> place{};
  constexpr byte_order() {
    for (std::size_t row = 0; row < 64; ++row)
      place[row % 16 / 4 * 16 + row / 16 * 4 + row % 4] = static_cast<std::uint8_t>(row);
  }
  constexpr const std::uint8_t* data() const { return place.data(); }
};
inline constexpr byte_order interleave_order{};

/// \brief Bytes of one plane of the 256-entry map for 64 codes: two lookups of 128 entries, chosen by bit 7.
[[gnu::always_inline]] inline __m512i look_up_plane(const std::uint8_t* plane, __m512i codes,
                                                    __mmask64 upper) {
  const __m512i low =
      _mm512_permutex2var_epi8(_mm512_load_si512(plane), codes, _mm512_load_si512(plane + 64));
  const __m512i high =
      _mm512_permutex2var_epi8(_mm512_load_si512(plane + 128), codes, _mm512_load_si512(plane + 192));
  return _mm512_mask_blend_epi8(upper, low, high);
}

[[gnu::always_inline]] inline void store_nested(__m512i entries, const float* nested, vec offset,
                                                float* out) {
  simd::store(out, simd::mul_then_add(_mm512_castsi512_ps(entries), simd::load(nested), offset));
}

/// \brief 64 double-quantised scales: map * second-level scale, rounded, + offset.
inline void decode_nested(const std::uint8_t* codes, const frozen_weight& w, const float* nested,
                          float* out) {
  // Interleaving works within quarters of a register: quarter q of the result number i comes from place 16 q
  // + 4 i.
  const __m512i order = _mm512_load_si512(interleave_order.data());
  const __m512i c = _mm512_permutexvar_epi8(order, _mm512_loadu_si512(codes));
  const __mmask64 upper = _mm512_movepi8_mask(c);
  const std::uint8_t* planes = w.map_planes.data();
  const __m512i b0 = look_up_plane(planes, c, upper);
  const __m512i b1 = look_up_plane(planes + 256, c, upper);
  const __m512i b2 = look_up_plane(planes + 512, c, upper);
  const __m512i b3 = look_up_plane(planes + 768, c, upper);
  const __m512i low01 = _mm512_unpacklo_epi8(b0, b1), high01 = _mm512_unpackhi_epi8(b0, b1);
  const __m512i low23 = _mm512_unpacklo_epi8(b2, b3), high23 = _mm512_unpackhi_epi8(b2, b3);
  const vec offset = simd::set(w.offset);
  store_nested(_mm512_unpacklo_epi16(low01, low23), nested, offset, out);
  store_nested(_mm512_unpackhi_epi16(low01, low23), nested + 16, offset, out + 16);
  store_nested(_mm512_unpacklo_epi16(high01, high23), nested + 32, offset, out + 32);
  store_nested(_mm512_unpackhi_epi16(high01, high23), nested + 48, offset, out + 48);
}

/// \brief Finds the codes of scaled weights: a binary search in a register of thresholds.
struct code_finder {
  vec thresholds;
  vec middle;
  __m512i order;

  [[gnu::always_inline]] explicit code_finder(const format_info& info) {
    alignas(64) float ascending[16];
    alignas(64) std::int32_t codes[16];
    for (std::size_t i = 0; i < 16; ++i) {
      ascending[i] = i < 15 ? info.thresholds[i] : HUGE_VALF;
      codes[i] = info.order[i];
    }
    thresholds = _mm512_load_ps(ascending);
    middle = simd::set(info.thresholds[7]);
    order = _mm512_load_si512(codes);
  }
};

/// \brief Rank + `Step` where the threshold in the middle of the next 2 `Step` levels lies below u.
template <int Step>
[[gnu::always_inline]] inline __m512i halve(vec u, __m512i rank, vec thresholds) {
  const vec middle = _mm512_permutexvar_ps(_mm512_add_epi32(rank, _mm512_set1_epi32(Step - 1)), thresholds);
  const mask above = _mm512_cmp_ps_mask(u, middle, _CMP_GT_OQ);
  return _mm512_mask_add_epi32(rank, above, rank, _mm512_set1_epi32(Step));
}

/// \brief Codes of 16 scaled weights as bytes, first weight in the high nibble.
[[gnu::always_inline]] inline void encode_run(vec u, const code_finder& finder, std::uint8_t* codes) {
  const mask upper = _mm512_cmp_ps_mask(u, finder.middle, _CMP_GT_OQ);
  __m512i rank = _mm512_maskz_mov_epi32(upper, _mm512_set1_epi32(8));
  rank = halve<4>(u, rank, finder.thresholds);
  rank = halve<2>(u, rank, finder.thresholds);
  rank = halve<1>(u, rank, finder.thresholds);
  const __m512i code = _mm512_permutexvar_epi32(rank, finder.order);
  const __m512i pairs = _mm512_or_si512(_mm512_slli_epi64(code, 4), _mm512_srli_epi64(code, 32));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(codes), _mm512_cvtepi64_epi8(pairs));
}
