// SPDX-License-Identifier: Apache-2.0
// Included after fused_registers.inl by the region that multiplies floats.

struct fused_product : float_product {
  using table = code_table;
  static constexpr index_t steps = 8;  ///< elements of one token for 8 columns
  static float sum_of(element x) { return x; }

  template <std::size_t Step>
  [[gnu::always_inline]] static vec decode(__m512i codes, const code_table& levels) {
    return decode_column<static_cast<int>(Step)>(codes, levels.levels);
  }
};

/// \brief x times the scales of 16 rows.
[[gnu::always_inline]] inline vec scaled_rows(const float* x, const float* scale) {
  return simd::mul(simd::load(x), simd::load(scale));
}

template <std::size_t Tokens, std::size_t K, std::size_t... T>
[[gnu::always_inline]] inline void add_rows(vec (&sums)[8][Tokens], vec w, const vec (&x)[Tokens],
                                            std::index_sequence<T...>) {
  ((sums[K][T] = simd::fmadd(w, x[T], sums[K][T])), ...);
}

template <std::size_t Tokens, std::size_t... K>
[[gnu::always_inline]] inline void add_columns(vec (&sums)[8][Tokens], __m512i codes, const code_table& table,
                                               const vec (&x)[Tokens], std::index_sequence<K...>) {
  (add_rows<Tokens, K>(sums, decode_column<static_cast<int>(K)>(codes, table.levels), x,
                       std::make_index_sequence<Tokens>{}),
   ...);
}

template <std::size_t Tokens, std::size_t... T>
[[gnu::always_inline]] inline void load_rows(vec (&x)[Tokens], const float* rows, index_t stride,
                                             const float* scale, std::index_sequence<T...>) {
  ((x[T] = scaled_rows(rows + static_cast<index_t>(T) * stride, scale)), ...);
}

template <std::size_t Tokens, std::size_t... I>
[[gnu::always_inline]] inline void load_sums(vec (&sums)[8][Tokens], const float* place,
                                             std::index_sequence<I...>) {
  ((sums[I / Tokens][I % Tokens] = simd::load(place + I * 16)), ...);
}

template <std::size_t Tokens, std::size_t... I>
[[gnu::always_inline]] inline void store_sums(const vec (&sums)[8][Tokens], float* place,
                                              std::index_sequence<I...>) {
  (simd::store(place + I * 16, sums[I / Tokens][I % Tokens]), ...);
}

/// \brief sums[8][Tokens] += x times 8 columns of 64 rows of each panel, lanes being rows.
template <std::size_t Tokens, std::size_t Panels>
[[gnu::always_inline]] inline void fused_columns(const std::uint8_t* codes, index_t panel_bytes,
                                                 const code_table& table, const float* const (&scale)[Panels],
                                                 const float* x, index_t x_stride, float* place) {
  constexpr auto all = std::make_index_sequence<8 * Tokens>{};
  vec sums[8][Tokens];
  load_sums<Tokens>(sums, place, all);
  for (std::size_t i = 0; i < Panels; ++i, codes += panel_bytes, x += 64)
    for (index_t v = 0; v < 4; ++v) {
      vec rows[Tokens];
      load_rows<Tokens>(rows, x + v * 16, x_stride, scale[i] + v * 16, std::make_index_sequence<Tokens>{});
      add_columns<Tokens>(sums, _mm512_loadu_si512(codes + v * 64), table, rows,
                          std::make_index_sequence<8>{});
    }
  store_sums<Tokens>(sums, place, all);
}
