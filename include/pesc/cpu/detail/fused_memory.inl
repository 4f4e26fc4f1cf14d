// SPDX-License-Identifier: Apache-2.0
// Included by instruction sets with few registers: sums of the fused products stay in the first cache.

/// \brief Sums of one cell before they are scaled.
template <std::size_t Tokens>
struct partial_sums {
  vec v[64 / simd::width][Tokens];

  [[gnu::always_inline]] void clear() {
    for (auto& row : v)
      for (vec& sum : row) sum = simd::zero();
  }
};

struct fused_product : float_product {
  using table = code_table;
  static constexpr index_t steps = 8;  ///< elements of one token for 8 columns
  static float sum_of(element x) { return x; }
};

template <std::size_t Tokens, std::size_t... K>
[[gnu::always_inline]] inline vec add_columns(const vec (&w)[8], const float* x, vec sum,
                                              std::index_sequence<K...>) {
  ((sum = simd::fmadd(w[K], simd::broadcast(x + K * Tokens), sum)), ...);
  return sum;
}

template <class Product, std::size_t Tokens, bool Stream>
[[gnu::always_inline]] inline void fused_group(const std::uint8_t* codes, const code_table& table,
                                               const float* x, partial_sums<Tokens>& part) {
  for (index_t v = 0; v < 64 / simd::width; ++v) {
    vec w[8];
    decode_rows(codes + v * simd::width * 4, table, w);
    for (std::size_t t = 0; t < Tokens; ++t)
      part.v[v][t] = add_columns<Tokens>(w, x + t, part.v[v][t], std::make_index_sequence<8>{});
  }
}

template <std::size_t Tokens>
[[gnu::always_inline]] inline void add_scaled(const partial_sums<Tokens>& part, const float* scale,
                                              float (&sums)[Tokens][64]) {
  for (index_t v = 0; v < 64 / simd::width; ++v)
    for (std::size_t t = 0; t < Tokens; ++t) {
      float* place = sums[t] + v * simd::width;
      simd::store(place, simd::fmadd(part.v[v][t], simd::load(scale + v * simd::width), simd::load(place)));
    }
}

template <std::size_t Tokens, std::size_t... K>
[[gnu::always_inline]] inline void add_rows(const vec (&w)[8], vec x, float* sums,
                                            std::index_sequence<K...>) {
  (simd::store(sums + K * Tokens * simd::width,
               simd::fmadd(w[K], x, simd::load(sums + K * Tokens * simd::width))),
   ...);
}

/// \brief sums[8][Tokens] += x times 8 columns of 64 rows of each panel, lanes being rows.
template <std::size_t Tokens, std::size_t Panels>
[[gnu::always_inline]] inline void fused_columns(const std::uint8_t* codes, index_t panel_bytes,
                                                 const code_table& table, const float* const (&scale)[Panels],
                                                 const float* x, index_t x_stride, float* sums) {
  for (std::size_t i = 0; i < Panels; ++i, codes += panel_bytes, x += 64)
    for (index_t v = 0; v < 64 / simd::width; ++v) {
      vec w[8];
      decode_rows(codes + v * simd::width * 4, table, w);
      const vec s = simd::load(scale[i] + v * simd::width);
      for (std::size_t t = 0; t < Tokens; ++t)
        add_rows<Tokens>(w,
                         simd::mul(s, simd::load(x + static_cast<index_t>(t) * x_stride + v * simd::width)),
                         sums + static_cast<index_t>(t) * simd::width, std::make_index_sequence<8>{});
    }
}
