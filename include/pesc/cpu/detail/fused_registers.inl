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
[[gnu::always_inline]] inline void add_row_step(vec (&sums)[Tokens * chains<Tokens>], vec w,
                                                const vec (&x)[Tokens], std::index_sequence<T...>) {
  constexpr std::size_t chain = Step % chains<Tokens>;
  ((sums[T * chains<Tokens> + chain] = Product::multiply_add(x[T], w, sums[T * chains<Tokens> + chain])),
   ...);
}

/// \brief One step of k for 64 rows: every sum gets one product before any gets its next, which hides their
/// latency.
template <class Product, std::size_t Tokens, std::size_t Step, std::size_t... T>
[[gnu::always_inline]] inline void add_step(const __m512i (&codes)[4], const typename Product::table& table,
                                            const typename Product::element* x, partial_sums<Tokens>& part,
                                            std::index_sequence<T...> tokens) {
  const vec right[Tokens] = {Product::broadcast(x + Step * Tokens + T)...};
  add_row_step<Product, Tokens, Step>(part.v[0], Product::template decode<Step>(codes[0], table), right,
                                      tokens);
  add_row_step<Product, Tokens, Step>(part.v[1], Product::template decode<Step>(codes[1], table), right,
                                      tokens);
  add_row_step<Product, Tokens, Step>(part.v[2], Product::template decode<Step>(codes[2], table), right,
                                      tokens);
  add_row_step<Product, Tokens, Step>(part.v[3], Product::template decode<Step>(codes[3], table), right,
                                      tokens);
}

template <class Product, std::size_t Tokens, std::size_t... Step>
[[gnu::always_inline]] inline void add_steps(const __m512i (&codes)[4], const typename Product::table& table,
                                             const typename Product::element* x, partial_sums<Tokens>& part,
                                             std::index_sequence<Step...>) {
  (add_step<Product, Tokens, Step>(codes, table, x, part, std::make_index_sequence<Tokens>{}), ...);
}

/// \brief Adds 8 columns of 64 rows for all tokens.
template <class Product, std::size_t Tokens, bool Stream>
[[gnu::always_inline]] inline void fused_group(const std::uint8_t* codes,
                                               const typename Product::table& table,
                                               const typename Product::element* x,
                                               partial_sums<Tokens>& part) {
  // Not kept in the outer caches: nobody reads these codes again soon.
  if constexpr (Stream)
    for (index_t line = 0; line < 256; line += 64)
      _mm_prefetch(reinterpret_cast<const char*>(codes + prefetch_distance + line), _MM_HINT_NTA);
  const __m512i rows[4] = {_mm512_loadu_si512(codes), _mm512_loadu_si512(codes + 64),
                           _mm512_loadu_si512(codes + 128), _mm512_loadu_si512(codes + 192)};
  add_steps<Product, Tokens>(rows, table, x, part,
                             std::make_index_sequence<static_cast<std::size_t>(Product::steps)>{});
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
  (simd::store(sums[T] + 16 * V, simd::fmadd(total<Tokens, V>(part, T), s, simd::load(sums[T] + 16 * V))),
   ...);
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
