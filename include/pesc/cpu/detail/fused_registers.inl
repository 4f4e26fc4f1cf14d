// SPDX-License-Identifier: Apache-2.0
// Included by the 512-bit instruction sets, whose 32 registers hold the sums of 4 tokens times 64 rows.

/// \brief How far ahead of their use codes are fetched, in bytes: about the latency of memory at full speed.
inline constexpr index_t prefetch_distance = 4096;

/// \brief Chains of one sum: a single token has too few sums to hide the latency of an addition.
template <std::size_t Tokens>
inline constexpr std::size_t chains = Tokens == 1 ? 2 : 1;

/// \brief Sums of one cell before they are scaled.
template <std::size_t Tokens>
struct partial_sums {
  vec v[4][Tokens * chains<Tokens>];

  [[gnu::always_inline]] void clear() { clear_rows(std::make_index_sequence<Tokens * chains<Tokens>>{}); }

 private:
  template <std::size_t... T>
  [[gnu::always_inline]] void clear_rows(std::index_sequence<T...>) {
    ((v[0][T] = v[1][T] = v[2][T] = v[3][T] = simd::zero()), ...);
  }
};

template <class Product, std::size_t Tokens, std::size_t Step, std::size_t... T>
[[gnu::always_inline]] inline void add_step(vec (&sums)[Tokens * chains<Tokens>], vec w,
                                            const typename Product::element* x, std::index_sequence<T...>) {
  constexpr std::size_t chain = Step % chains<Tokens>;
  ((sums[T * chains<Tokens> + chain] =
        Product::multiply_add(Product::broadcast(x + Step * Tokens + T), w, sums[T * chains<Tokens> + chain])),
   ...);
}

template <class Product, std::size_t Tokens, bool Stream, std::size_t... Step>
[[gnu::always_inline]] inline void fused_rows(const std::uint8_t* codes, const typename Product::table& table,
                                              const typename Product::element* x,
                                              vec (&sums)[Tokens * chains<Tokens>], std::index_sequence<Step...>) {
  const __m512i v = _mm512_loadu_si512(codes);
  // Not kept in the outer caches: nobody reads these codes again soon.
  if constexpr (Stream) _mm_prefetch(reinterpret_cast<const char*>(codes + prefetch_distance), _MM_HINT_NTA);
  (add_step<Product, Tokens, Step>(sums, Product::template decode<Step>(v, table), x, std::make_index_sequence<Tokens>{}),
   ...);
}

/// \brief Adds 8 columns of 64 rows for all tokens.
template <class Product, std::size_t Tokens, bool Stream>
[[gnu::always_inline]] inline void fused_group(const std::uint8_t* codes, const typename Product::table& table,
                                               const typename Product::element* x, partial_sums<Tokens>& part) {
  constexpr auto steps = std::make_index_sequence<static_cast<std::size_t>(Product::steps)>{};
  fused_rows<Product, Tokens, Stream>(codes, table, x, part.v[0], steps);
  fused_rows<Product, Tokens, Stream>(codes + 64, table, x, part.v[1], steps);
  fused_rows<Product, Tokens, Stream>(codes + 128, table, x, part.v[2], steps);
  fused_rows<Product, Tokens, Stream>(codes + 192, table, x, part.v[3], steps);
}

template <std::size_t Tokens, std::size_t V>
[[gnu::always_inline]] inline vec total(const partial_sums<Tokens>& part, std::size_t t) {
  if constexpr (Tokens == 1)
    return simd::add(part.v[V][0], part.v[V][1]);
  else
    return part.v[V][t];
}

template <std::size_t Tokens, std::size_t V, std::size_t... T>
[[gnu::always_inline]] inline void add_scaled_rows(const partial_sums<Tokens>& part, const float* scale,
                                                   float (&sums)[Tokens][64], std::index_sequence<T...>) {
  const vec s = simd::load(scale + 16 * V);
  (simd::store(sums[T] + 16 * V, simd::fmadd(total<Tokens, V>(part, T), s, simd::load(sums[T] + 16 * V))), ...);
}

/// \brief sums += part * scale, the scale of each row.
template <std::size_t Tokens>
[[gnu::always_inline]] inline void add_scaled(const partial_sums<Tokens>& part, const float* scale,
                                              float (&sums)[Tokens][64]) {
  constexpr auto tokens = std::make_index_sequence<Tokens>{};
  add_scaled_rows<Tokens, 0>(part, scale, sums, tokens);
  add_scaled_rows<Tokens, 1>(part, scale, sums, tokens);
  add_scaled_rows<Tokens, 2>(part, scale, sums, tokens);
  add_scaled_rows<Tokens, 3>(part, scale, sums, tokens);
}
