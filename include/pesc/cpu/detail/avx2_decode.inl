// SPDX-License-Identifier: Apache-2.0
// Included inside the region of AVX2, after `vec` and `simd`.
//
// Permutations of floats are slow here, byte shuffles are not: a level is looked up as four bytes, one table
// each, and the bytes are interleaved to floats.

/// \brief Values of the 16 codes: table i holds byte i of each, in both halves of a register.
struct code_table {
  __m256i plane[4];

  [[gnu::always_inline]] explicit code_table(const frozen_weight& w) {
    alignas(16) std::uint8_t bytes[64];
    std::uint8_t levels[64];
    std::memcpy(levels, w.levels.data(), 64);
    for (int code = 0; code < 16; ++code)
      for (int i = 0; i < 4; ++i) bytes[16 * i + code] = levels[4 * code + i];
    for (int i = 0; i < 4; ++i)
      plane[i] =
          _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(bytes + 16 * i)));
  }
};

/// \brief Floats of 32 codes, one in each byte: w[i] holds bytes 4 i to 4 i + 3 of both halves.
[[gnu::always_inline]] inline void look_up(__m256i codes, const code_table& table, vec& w0, vec& w1, vec& w2,
                                           vec& w3) {
  const __m256i q0 = _mm256_shuffle_epi8(table.plane[0], codes);
  const __m256i q1 = _mm256_shuffle_epi8(table.plane[1], codes);
  const __m256i q2 = _mm256_shuffle_epi8(table.plane[2], codes);
  const __m256i q3 = _mm256_shuffle_epi8(table.plane[3], codes);
  const __m256i low01 = _mm256_unpacklo_epi8(q0, q1);
  const __m256i high01 = _mm256_unpackhi_epi8(q0, q1);
  const __m256i low23 = _mm256_unpacklo_epi8(q2, q3);
  const __m256i high23 = _mm256_unpackhi_epi8(q2, q3);
  w0 = _mm256_castsi256_ps(_mm256_unpacklo_epi16(low01, low23));
  w1 = _mm256_castsi256_ps(_mm256_unpackhi_epi16(low01, low23));
  w2 = _mm256_castsi256_ps(_mm256_unpacklo_epi16(high01, high23));
  w3 = _mm256_castsi256_ps(_mm256_unpackhi_epi16(high01, high23));
}

/// \brief 8 columns of 8 rows, whose codes lie together: w[k] holds column k.
[[gnu::always_inline]] inline void decode_rows(const std::uint8_t* codes, const code_table& table,
                                               vec (&w)[8]) {
  // Byte j of row r goes to place 4 j + r of its half, so that the interleaved floats come out in the order
  // of rows.
  const __m256i by_byte = _mm256_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15, 0, 4, 8, 12,
                                           1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m256i nibble = _mm256_set1_epi8(0x0F);
  const __m256i v = _mm256_shuffle_epi8(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes)), by_byte);
  look_up(_mm256_and_si256(v, nibble), table, w[0], w[2], w[4], w[6]);
  look_up(_mm256_and_si256(_mm256_srli_epi16(v, 4), nibble), table, w[1], w[3], w[5], w[7]);
}

/// \brief Floats of two rows in either half of `codes`, whose bytes are in the order of columns.
[[gnu::always_inline]] inline void two_rows(__m256i codes, const code_table& table, vec& low0, vec& high0,
                                            vec& low1, vec& high1) {
  vec a0, a1, b0, b1;
  look_up(codes, table, a0, a1, b0, b1);
  low0 = _mm256_permute2f128_ps(a0, a1, 0x20);
  high0 = _mm256_permute2f128_ps(a0, a1, 0x31);
  low1 = _mm256_permute2f128_ps(b0, b1, 0x20);
  high1 = _mm256_permute2f128_ps(b0, b1, 0x31);
}

/// \brief 8 columns from `k` of 8 rows of a cell: w[r] holds row r.
[[gnu::always_inline]] inline void decode_cols(const std::uint8_t* codes, index_t row, index_t k,
                                               const code_table& table, vec (&w)[8]) {
  const __m256i nibble = _mm256_set1_epi8(0x0F);
  const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + k * 32 + row * 4));
  const __m256i low = _mm256_and_si256(v, nibble);
  const __m256i high = _mm256_and_si256(_mm256_srli_epi16(v, 4), nibble);
  two_rows(_mm256_unpacklo_epi8(low, high), table, w[0], w[4], w[1], w[5]);
  two_rows(_mm256_unpackhi_epi8(low, high), table, w[2], w[6], w[3], w[7]);
}

/// \brief 32 weights of 16 bytes in the order of checkpoints, first weight in the high nibble.
[[gnu::always_inline]] inline void decode_run(const std::uint8_t* codes, const code_table& table,
                                              vec (&w)[4]) {
  const __m128i nibble = _mm_set1_epi8(0x0F);
  const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes));
  const __m128i low = _mm_and_si128(v, nibble);
  const __m128i high = _mm_and_si128(_mm_srli_epi16(v, 4), nibble);
  vec a0, a1, b0, b1;
  look_up(_mm256_set_m128i(_mm_unpackhi_epi8(high, low), _mm_unpacklo_epi8(high, low)), table, a0, a1, b0,
          b1);
  w[0] = _mm256_permute2f128_ps(a0, a1, 0x20);
  w[1] = _mm256_permute2f128_ps(b0, b1, 0x20);
  w[2] = _mm256_permute2f128_ps(a0, a1, 0x31);
  w[3] = _mm256_permute2f128_ps(b0, b1, 0x31);
}

/// \brief 64 double-quantised scales: map * second-level scale, rounded, + offset. Tables of 256 entries are
/// read from memory: lookups by shuffles of 16 bytes cost more.
inline void decode_nested(const std::uint8_t* codes, const frozen_weight& w, const float* nested,
                          float* out) {
  alignas(32) float entries[64];
  for (int r = 0; r < 64; ++r) entries[r] = w.map[codes[r]];
  const vec offset = simd::set(w.offset);
  for (int r = 0; r < 64; r += 8)
    simd::store(out + r, simd::mul_then_add(simd::load(entries + r), simd::load(nested + r), offset));
}

/// \brief Finds the codes of scaled weights: a binary search, whose last two steps look thresholds up by
/// rank.
struct code_finder {
  vec first, second_low, second_high;
  vec third;   ///< thresholds 1, 5, 9, 13
  vec fourth;  ///< thresholds 0, 2, ... 14
  __m256i order;

  [[gnu::always_inline]] explicit code_finder(const format_info& info) {
    const auto& t = info.thresholds;
    first = _mm256_set1_ps(t[7]);
    second_low = _mm256_set1_ps(t[3]);
    second_high = _mm256_set1_ps(t[11]);
    third = _mm256_setr_ps(t[1], t[5], t[9], t[13], t[1], t[5], t[9], t[13]);
    fourth = _mm256_setr_ps(t[0], t[2], t[4], t[6], t[8], t[10], t[12], t[14]);
    order = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(info.order.data())));
  }
};

/// \brief `step` where u lies above the threshold.
[[gnu::always_inline]] inline __m256i step_above(vec u, vec threshold, int step) {
  return _mm256_and_si256(_mm256_castps_si256(_mm256_cmp_ps(u, threshold, _CMP_GT_OQ)),
                          _mm256_set1_epi32(step));
}

/// \brief Codes of 8 scaled weights as bytes, first weight in the high nibble.
[[gnu::always_inline]] inline void encode_run(vec u, const code_finder& finder, std::uint8_t* codes) {
  const vec upper = _mm256_cmp_ps(u, finder.first, _CMP_GT_OQ);
  __m256i rank = _mm256_and_si256(_mm256_castps_si256(upper), _mm256_set1_epi32(8));
  rank = _mm256_add_epi32(rank,
                          step_above(u, _mm256_blendv_ps(finder.second_low, finder.second_high, upper), 4));
  rank = _mm256_add_epi32(
      rank, step_above(u, _mm256_permutevar8x32_ps(finder.third, _mm256_srli_epi32(rank, 2)), 2));
  rank = _mm256_add_epi32(
      rank, step_above(u, _mm256_permutevar8x32_ps(finder.fourth, _mm256_srli_epi32(rank, 1)), 1));
  // A set high bit makes the lookup give 0: only the lowest byte of a lane is a rank.
  const __m256i code = _mm256_shuffle_epi8(
      finder.order, _mm256_or_si256(rank, _mm256_set1_epi32(static_cast<int>(0x80808000u))));
  const __m256i pairs = _mm256_or_si256(_mm256_slli_epi64(code, 4), _mm256_srli_epi64(code, 32));
  const __m256i bytes = _mm256_shuffle_epi8(
      pairs, _mm256_setr_epi8(0, 8, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0, 8, -1, -1, -1,
                              -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1));
  const int low = _mm_cvtsi128_si32(_mm256_castsi256_si128(bytes));
  const int high = _mm_cvtsi128_si32(_mm256_extracti128_si256(bytes, 1));
  const int all = low | high << 16;
  std::memcpy(codes, &all, 4);
}
