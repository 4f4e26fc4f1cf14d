// SPDX-License-Identifier: Apache-2.0
// Included once per instruction set, inside namespace `pesc::cpu::detail::<isa>` and its target region, after
// nf4.inl and `fused_columns`.
//
// x W for few tokens: lanes are rows of W, so the sums of a column are spread over lanes and added up at the
// end.

/// \brief Cells that one task of the fused transposed product takes of every panel: short runs of one stream.
inline constexpr index_t run_cells = 8;

/// \brief Panels whose products are added before sums go to memory.
inline constexpr index_t run_panels = 4;

/// \brief sums[k][Tokens] += x W for a run of cells of `Panels` panels; sums are read and written once for
/// all of them.
template <std::size_t Tokens, std::size_t Panels>
inline void fused_run(const frozen_weight& w, const code_table& table, index_t panel, index_t first,
                      index_t count, const float* x, index_t x_stride, cell_scales (&scales)[run_panels],
                      float* sums) {
  const index_t cell_bytes = w.layout.cell_bytes();
  const index_t panel_bytes = w.layout.panel_bytes();
  const index_t lines = cell_bytes / 64 / 8 + 1;
  for (index_t cell = first; cell < first + count; ++cell) {
    const std::uint8_t* codes = w.bytes + w.layout.offset(panel, cell);
    for (std::size_t i = 0; i < Panels; ++i) read_scales(w, panel + static_cast<index_t>(i), cell, scales[i]);
    for (index_t g = 0; g < 8; ++g) {
      // The runs of the next panels lie too far away for the processor to foresee.
      for (std::size_t i = 0; i < Panels; ++i)
        for (index_t line = 0; line < lines; ++line)
          simd::prefetch(codes + static_cast<index_t>(Panels + i) * panel_bytes + (g * lines + line) * 64);
      const index_t half = scales[0].count == 1 ? 0 : g / 4;
      const float* scale[Panels];
      for (std::size_t i = 0; i < Panels; ++i) scale[i] = scales[i].scale[half];
      fused_columns<Tokens, Panels>(codes + g * 256, panel_bytes, table, scale, x + panel * 64, x_stride,
                                    sums);
      sums += 8 * static_cast<index_t>(Tokens) * simd::width;
    }
  }
}

/// \brief y[Tokens, run of cells] (+)= x W; x is [Tokens][x_stride], padded with zeros to whole panels.
template <std::size_t Tokens>
[[gnu::noinline]] void fused_transposed(const frozen_weight& w, index_t first, const float* x,
                                        index_t x_stride, const frozen_result& y, float* sums) {
  const code_table table(w);
  cell_scales scales[run_panels];
  const index_t count = std::min(run_cells, w.layout.cell_count() - first);
  constexpr index_t lanes = static_cast<index_t>(Tokens) * simd::width;
  std::fill_n(sums, count * 64 * lanes, 0.0f);
  index_t panel = 0;
  for (; panel + run_panels <= w.layout.panel_count(); panel += run_panels)
    fused_run<Tokens, static_cast<std::size_t>(run_panels)>(w, table, panel, first, count, x, x_stride,
                                                            scales, sums);
  for (; panel < w.layout.panel_count(); ++panel)
    fused_run<Tokens, 1>(w, table, panel, first, count, x, x_stride, scales, sums);
  for (index_t k = 0; k < count * 64; k += simd::width)
    for (index_t t = 0; t < static_cast<index_t>(Tokens); ++t) {
      vec block[simd::width];
      for (index_t i = 0; i < simd::width; ++i)
        block[i] = simd::load(sums + (k + i) * lanes + t * simd::width);
      simd::transpose(block);
      for (index_t i = 1; i < simd::width; ++i) block[0] = simd::add(block[0], block[i]);
      alignas(64) float total[simd::width];
      simd::store(total, block[0]);
      const index_t col = first * 64 + k;
      copy_sums(total, y.data + t * y.stride + col, std::clamp<index_t>(w.layout.cols - col, 0, simd::width),
                y.accumulate);
    }
}

using fused_transposed_function = void (*)(const frozen_weight&, index_t, const float*, index_t,
                                           const frozen_result&, float*);

template <std::size_t... T>
inline fused_transposed_function find_fused_transposed(index_t tokens, std::index_sequence<T...>) {
  static constexpr fused_transposed_function table[] = {&fused_transposed<T + 1>...};
  return table[tokens - 1];
}
