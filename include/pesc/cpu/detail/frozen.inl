// SPDX-License-Identifier: Apache-2.0
// Included once per instruction set, inside namespace `pesc::cpu::detail::<isa>` and its target region, after
// fused.inl and the constants `fused_limit` and `fused_transposed_limit`: the most tokens for which those
// paths are the faster.

/// \brief A cell of a later panel: x W walks across panels, too far apart for the processor to foresee.
inline void prefetch_cell(const frozen_weight& w, const std::uint8_t* cell) {
  for (index_t line = 0; line < w.layout.cell_bytes(); line += 64) simd::prefetch(cell + line);
}

/// \brief Products with frozen weights, by slabs: a slab is a panel of x W^T, or some columns of cells of x
/// W.
struct frozen_kernels {
  static constexpr index_t few_tokens = 64;  ///< sums of so many stay in a block of their own
  static constexpr index_t tile_cells = 4;   ///< most cells of one tile
  static constexpr index_t tile_floats = tile_cells * 64 * 64;
  static constexpr index_t frozen_scratch =
      std::max(tile_floats + few_tokens * 64,
               fused_transposed_tokens* run_cells * 64 * simd::width);  ///< floats of each worker

  static inline frozen_plan plan(const frozen_weight& w, bool transposed, index_t tokens, bool round_bf16) {
    frozen_plan p{frozen_path::tile, transposed, round_bf16, {tokens, block_rows}};
    if (w.layout.element != element_kind::code4 || w.layout.straddles()) return p;
    if (transposed && w.layout.scales == scale_kind::with_minimum) return p;
    if (tokens > (transposed ? fused_transposed_limit : fused_limit)) return p;
    p.path = transposed ? frozen_path::fused_transposed : frozen_path::fused;
    p.blocks.most = transposed ? fused_transposed_tokens : fused_tokens;
    return p;
  }

  static inline index_t slabs(const frozen_plan& p, const frozen_weight& w) {
    if (!p.transposed) return w.layout.panel_count();
    return p.path == frozen_path::fused_transposed ? ceil_div(w.layout.cell_count(), run_cells)
                                                   : w.layout.cell_count();
  }

  /// \brief Packs the tokens of block `b`: [k_padded][tokens], or [tokens][k_padded] where lanes run along k.
  static inline void pack_tokens(const frozen_plan& p, matrix_view<const float> x, index_t k_padded,
                                 index_t b, float* packed) {
    const float* rows = x.row(p.blocks.begin(b));
    float* out = packed + p.blocks.begin(b) * k_padded;
    if (p.path != frozen_path::fused_transposed) {
      pack_transposed(rows, x.stride, p.blocks.size(b), x.cols, k_padded, out, p.blocks.size(b),
                      p.round_bf16);
      return;
    }
    for (index_t t = 0; t < p.blocks.size(b); ++t)
      copy_padded(rows + t * x.stride, x.cols, k_padded, p.round_bf16, out + t * k_padded);
  }

  static inline void multiply_frozen(const frozen_plan& p, const frozen_weight& w, index_t slab,
                                     const float* packed, const frozen_result& y, float* scratch) {
    if (p.path == frozen_path::fused) {
      fused_panel_all<fused_product>(w, slab, packed, w.layout.cell_count() * 64, p.blocks, y);
    } else if (p.path == frozen_path::fused_transposed) {
      const index_t stride = w.layout.panel_count() * 64;
      constexpr auto sizes = std::make_index_sequence<static_cast<std::size_t>(fused_transposed_tokens)>{};
      for (index_t b = 0; b < p.blocks.count(); ++b)
        find_fused_transposed(p.blocks.size(b), sizes)(
            w, slab * run_cells, packed + p.blocks.begin(b) * stride, stride,
            {y.data + p.blocks.begin(b) * y.stride, y.stride, y.accumulate}, scratch);
    } else {
      multiply_tiles(p, w, slab, packed, y, scratch);
    }
  }

 private:
  static inline void copy_padded(const float* x, index_t n, index_t n_padded, bool round_bf16, float* out) {
    for (index_t i = 0; i < n_padded; i += simd::width) {
      const vec v = i + simd::width <= n ? simd::load(x + i)
                    : i < n              ? simd::load_n(x + i, n - i)
                                         : simd::zero();
      simd::store(out + i, round_bf16 ? simd::round_to_bf16(v) : v);
    }
  }

  static inline void multiply_tiles(const frozen_plan& p, const frozen_weight& w, index_t slab,
                                    const float* packed, const frozen_result& y, float* scratch) {
    const code_table table(w);
    cell_scales scales;
    const index_t cells = p.transposed ? w.layout.panel_count() : w.layout.cell_count();
    const index_t cols = std::min<index_t>(64, (p.transposed ? w.layout.cols : w.layout.rows) - slab * 64);
    const packed_rows<float_product> left{packed, p.blocks, cells * 64};
    const bool few = p.blocks.rows <= few_tokens;
    float* sums = few ? scratch + tile_floats : y.data + slab * 64;
    const index_t sums_stride = few ? 64 : y.stride;
    const index_t most = few ? 1 : tile_cells;
    for (index_t first = 0; first < cells; first += most) {
      const index_t count = std::min(most, cells - first);
      const tile_place tile{scratch, count * 64 * sliver_cols};
      for (index_t i = 0; i < count; ++i) {
        if (few && p.transposed) prefetch_cell(w, w.bytes + w.layout.offset(first + i + 1, slab));
        decode_any_cell(w, table, p.transposed ? first + i : slab, p.transposed ? slab : first + i,
                        p.transposed, scales, {tile.at(i * 64, 0), tile.sliver_stride});
      }
      multiply_packed<float_product>(left, first * 64, count * 64,
                                     {tile.data, tile.sliver_stride, sliver_cols, cols}, sums, sums_stride,
                                     1.0f, first > 0 || (y.accumulate && !few));
    }
    if (!few) return;
    for (index_t t = 0; t < p.blocks.rows; ++t)
      copy_sums(sums + t * 64, y.data + t * y.stride + slab * 64, cols, y.accumulate);
  }
};
