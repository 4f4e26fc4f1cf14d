// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/cpu/detail/avx512.hpp"

// Products of bf16 pairs: two columns, or two rows for x W, in each 32-bit lane. All else is that of
// avx512.hpp.

PESC_TARGET_BEGIN("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512bf16")

namespace pesc::cpu {
inline namespace PESC_CPU_ABI {
namespace detail {
namespace avx512_bf16 {

using avx512::cell_scales;
using avx512::mask;
using avx512::prefetch_cell;
using avx512::read_scales;
using avx512::vec;
namespace simd = avx512::simd;

inline constexpr index_t block_rows = 12;
inline constexpr index_t fused_tokens = 4;

// The order matters: each file uses the ones above it.
// clang-format off
#include "pesc/cpu/detail/matmul.inl"
#include "pesc/cpu/detail/bf16_pairs.inl"
#include "pesc/cpu/detail/fused_registers.inl"
#include "pesc/cpu/detail/fused.inl"
// clang-format on

struct kernels : avx512::kernels {
  static constexpr isa level = isa::avx512_bf16;

  static inline frozen_plan plan(const frozen_weight& w, bool transposed, index_t tokens, bool round_bf16) {
    frozen_plan p = avx512::kernels::plan(w, transposed, tokens, round_bf16);
    if (!round_bf16 || w.layout.element != element_kind::code4 || w.layout.straddles()) return p;
    if (transposed && w.layout.scales == scale_kind::with_minimum) return p;
    if (!transposed) {
      p.path = frozen_path::fused_bf16;
      p.blocks.most = fused_tokens;
    } else if (p.path != frozen_path::fused_transposed || tokens > few_transposed) {
      p.path = frozen_path::tile_bf16;
      p.blocks.most = block_rows;
    }
    return p;
  }

  static inline void pack_tokens(const frozen_plan& p, matrix_view<const float> x, index_t k_padded,
                                 index_t b, float* packed) {
    if (p.path != frozen_path::fused_bf16 && p.path != frozen_path::tile_bf16) {
      avx512::kernels::pack_tokens(p, x, k_padded, b, packed);
      return;
    }
    pack_pairs(x.row(p.blocks.begin(b)), x.stride, p.blocks.size(b), x.cols, k_padded,
               p.path == frozen_path::fused_bf16, packed + p.blocks.begin(b) * k_padded / 2);
  }

  static inline void multiply_frozen(const frozen_plan& p, const frozen_weight& w, index_t slab,
                                     const float* packed, const frozen_result& y, float* scratch) {
    if (p.path == frozen_path::fused_bf16)
      fused_panel_all<fused_pairs>(w, slab, reinterpret_cast<const std::uint32_t*>(packed),
                                   w.layout.cell_count() * 32, p.blocks, y);
    else if (p.path == frozen_path::tile_bf16)
      multiply_pair_tiles(p, w, slab, reinterpret_cast<const std::uint32_t*>(packed), y, scratch);
    else
      avx512::kernels::multiply_frozen(p, w, slab, packed, y, scratch);
  }

 private:
  static constexpr index_t few_transposed =
      4;  ///< tokens up to which decoding to floats in registers is the faster

  static inline void multiply_pair_tiles(const frozen_plan& p, const frozen_weight& w, index_t slab,
                                         const std::uint32_t* packed, const frozen_result& y,
                                         float* scratch) {
    const avx512::code_table table(w);
    cell_scales scales;
    const index_t panels = w.layout.panel_count();
    const index_t cols = std::min<index_t>(64, w.layout.cols - slab * 64);
    const packed_rows<pair_product> left{packed, p.blocks, panels * 32};
    auto* tile = reinterpret_cast<std::uint32_t*>(scratch);
    const bool few = p.blocks.rows <= few_tokens;
    float* sums = few ? scratch + tile_floats : y.data + slab * 64;
    const index_t sums_stride = few ? 64 : y.stride;
    const index_t most = few ? 2 : 2 * tile_cells;
    for (index_t first = 0; first < panels; first += most) {
      const index_t count = std::min(most, panels - first);
      for (index_t i = 0; i < count; ++i) {
        read_scales(w, first + i, slab, scales);
        const std::uint8_t* codes = w.bytes + w.layout.offset(first + i, slab);
        if (few) prefetch_cell(w, codes + most * w.layout.panel_bytes());
        std::uint32_t* place = tile + i * 32 * sliver_cols;
        scales.count == 1 ? decode_pairs<1>(codes, table, scales, place, count * 32 * sliver_cols)
                          : decode_pairs<2>(codes, table, scales, place, count * 32 * sliver_cols);
      }
      multiply_packed<pair_product>(left, first * 32, count * 32,
                                    {tile, count * 32 * sliver_cols, sliver_cols, cols}, sums, sums_stride,
                                    1.0f, first > 0 || (y.accumulate && !few));
    }
    if (!few) return;
    for (index_t t = 0; t < p.blocks.rows; ++t)
      copy_sums(sums + t * 64, y.data + t * y.stride + slab * 64, cols, y.accumulate);
  }
};

}  // namespace avx512_bf16
}  // namespace detail
}  // namespace PESC_CPU_ABI
}  // namespace pesc::cpu

PESC_TARGET_END
