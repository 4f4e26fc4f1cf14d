// SPDX-License-Identifier: Apache-2.0
// Included once per instruction set, inside namespace `pesc::cpu::detail::<isa>` and its target region, after
// nf4.inl and `partial_sums` with `fused_group` and `add_scaled`.
//
// Products that decode 4-bit codes in registers and never write weights to memory. Levels are multiplied
// without their scale; the sum of a cell is scaled once. Codes are read in the order of addresses, scales
// after the codes of their cell: memory then sees one forward stream.

/// \brief sums += the sum of each token's `elements` times the minimum of each row.
template <class Product, std::size_t Tokens>
inline void add_minimum(const typename Product::element* x, index_t elements, const float* minimum,
                        float (&sums)[Tokens][64]) {
  constexpr std::size_t chains = 4;
  float sum[chains][Tokens] = {};
  for (index_t i = 0; i < elements; i += chains)
    for (auto& chain : sum)
      for (float& total : chain) total += Product::sum_of(*x++);
  for (std::size_t t = 0; t < Tokens; ++t) {
    const vec s = simd::set((sum[0][t] + sum[1][t]) + (sum[2][t] + sum[3][t]));
    for (index_t row = 0; row < 64; row += simd::width)
      simd::store(sums[t] + row, simd::fmadd(s, simd::load(minimum + row), simd::load(sums[t] + row)));
  }
}

/// \brief y[tokens, 64] (+)= x W^T for one panel and `Tokens` tokens, packed [k / element][Tokens].
///
/// `Stream` tells that these codes are not read again by a further block of tokens.
template <class Product, std::size_t Tokens, bool Stream>
[[gnu::noinline]] void fused_panel(const frozen_weight& w, index_t panel, const typename Product::element* x,
                                   const frozen_result& y) {
  const typename Product::table table(w);
  alignas(64) float sums[Tokens][64] = {};
  cell_scales scales;
  const index_t groups = 8 / w.layout.scales_per_row();
  for (index_t cell = 0; cell < w.layout.cell_count(); ++cell) {
    const std::uint8_t* codes = w.bytes + w.layout.offset(panel, cell);
    for (index_t begin = 0; begin < 8; begin += groups) {
      partial_sums<Tokens> part;
      part.clear();
      for (index_t g = begin; g < begin + groups; ++g) {
        fused_group<Product, Tokens, Stream>(codes + g * 256, table, x, part);
        x += Product::steps * static_cast<index_t>(Tokens);
      }
      if (begin == 0) read_scales(w, panel, cell, scales);
      add_scaled<Tokens>(part, scales.scale[begin / groups], sums);
      if (scales.minimum[0] != nullptr) {
        const index_t elements = groups * Product::steps;
        add_minimum<Product, Tokens>(x - elements * static_cast<index_t>(Tokens), elements,
                                     scales.minimum[begin / groups], sums);
      }
    }
  }
  const index_t rows = std::min<index_t>(64, w.layout.rows - panel * 64);
  for (std::size_t t = 0; t < Tokens; ++t)
    copy_sums(sums[t], y.data + static_cast<index_t>(t) * y.stride + panel * 64, rows, y.accumulate);
}

template <class Product>
using fused_function = void (*)(const frozen_weight&, index_t, const typename Product::element*,
                                const frozen_result&);

template <class Product, bool Stream, std::size_t... T>
inline fused_function<Product> find_fused(index_t tokens, std::index_sequence<T...>) {
  static constexpr fused_function<Product> table[] = {&fused_panel<Product, T + 1, Stream>...};
  return table[tokens - 1];
}

/// \brief One panel for all blocks of tokens.
template <class Product>
inline void fused_panel_all(const frozen_weight& w, index_t panel, const typename Product::element* packed,
                            index_t elements_per_token, equal_blocks blocks, const frozen_result& y) {
  constexpr auto sizes = std::make_index_sequence<static_cast<std::size_t>(fused_tokens)>{};
  for (index_t b = 0; b < blocks.count(); ++b) {
    const index_t tokens = blocks.size(b);
    const auto multiply = blocks.count() == 1 ? find_fused<Product, true>(tokens, sizes)
                                              : find_fused<Product, false>(tokens, sizes);
    multiply(w, panel, packed + blocks.begin(b) * elements_per_token,
             {y.data + blocks.begin(b) * y.stride, y.stride, y.accumulate});
  }
}
