// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/gpu/detail/frozen_tile_kernels.cuh"

// Products y (+)= x W, from the same bytes: 64 rows of 128 columns of W at a time are decoded, scaled
// exactly, into shared memory, from where `ldmatrix.trans` takes them as the left operand of mma.m16n8k16;
// tokens are the right one.

namespace pesc::gpu::detail {

inline constexpr int transposed_cols = 128;

/// \brief Shared memory: the decoded weights, twice where there is room for it, and the stages of tokens.
template <class Source, int Tokens>
struct transposed_memory {
  static constexpr int weight_buffers = Source::stride == narrow_table ? 1 : 2;
  static constexpr int stages = Tokens > 64 || Source::stride == narrow_table ? 2 : 4;
  static constexpr std::uint32_t weight_bytes = 64 * transposed_cols * 2;
  static constexpr std::uint32_t stage_bytes = Tokens * 128;
  static constexpr std::uint32_t stage_place = weight_buffers * weight_bytes;
  static constexpr std::uint32_t large_bytes = stage_place + stages * stage_bytes;
  static constexpr std::uint32_t small_bytes = Source::map_bytes + 16;
  static_assert(large_bytes >= 8 * write_bytes);
};

/// \brief Byte of 16-byte chunk `chunk` of row `f` of the decoded weights; rows and columns of chunks lie in
/// different banks.
__device__ inline std::uint32_t weight_chunk(std::uint32_t f, std::uint32_t chunk) {
  return f * (transposed_cols * 2) + (chunk ^ f % 2 * 4 + f / 2 % 4) * 16;
}

/// \brief The same of a stage of tokens.
__device__ inline std::uint32_t token_chunk(std::uint32_t token, std::uint32_t chunk) {
  return token * 128 + (chunk ^ token % 8) * 16;
}

/// \brief Decodes one record a warp of each 64 rows of W.
template <class Source>
struct weight_stager {
  typename Source::record record;
  typename Source::scales scales;
  typename Source::place scale_place;
  const std::uint8_t* from;
  std::uint32_t cell, row_tile;
  bool inside;

  __device__ weight_stager(const frozen_weight& w, std::uint32_t group, std::uint32_t first_cell)
      : scale_place(w, group * 4 + warp_of_block() % 4) {
    const std::uint32_t warp = warp_of_block();
    row_tile = warp % 4;
    cell = first_cell + warp / 4;
    inside = cell < w.layout.cell_count();
    from = w.codes + w.layout.offset(group * 4 + row_tile, inside ? cell : 0) + threadIdx.x % 32 * 16;
  }

  /// \brief Starts the loads of the next 64 rows.
  __device__ void load(const frozen_weight& w) {
    if (!inside) return;
    record.load(from);
    from += w.layout.cell_count() * (4 * Source::record_bytes);
    scales.load(w, scale_place, 0, cell / 4);
    scale_place.next_group(w);
  }

  __device__ void store(const frozen_weight& w, const Source& source, std::uint32_t to) {
    if (!inside) return;
    const std::uint32_t lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    scales.decode(w, source.pairs);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int unit = Source::units == 2 ? half : 0;
      const float upper = scales.get(static_cast<int>(cell % 4), unit, 0);
      const float lower = scales.get(static_cast<int>(cell % 4), unit, 1);
      std::uint32_t a[4], b[4];
      source.fragment(a, record, half * 2, upper, lower);
      source.fragment(b, record, half * 2 + 1, upper, lower);
      const std::uint32_t chunk = cell % 2 * 8 + half * 4 + t;
      store_shared_16(to + weight_chunk(row_tile * 16 + g, chunk), a[0], a[2], b[0], b[2]);
      store_shared_16(to + weight_chunk(row_tile * 16 + g + 8, chunk), a[1], a[3], b[1], b[3]);
    }
  }
};

/// \brief A block has 128 columns of W and `Tokens` tokens.
template <class Source, int Tokens>
__global__ void __launch_bounds__(256, 1) frozen_transposed_kernel(const __grid_constant__ tiled_product s) {
  using memory_plan = transposed_memory<Source, Tokens>;
  constexpr int stages = memory_plan::stages;
  // Warps: 2 by 4 with 64 columns and tokens each, or 4 by 2 with 32.
  constexpr int col_warps = Tokens == 256 ? 2 : 4, tiles = transposed_cols / col_warps / 16;
  constexpr int token_tiles = Tokens / (8 / col_warps) / 8;
  const frozen_weight& w = s.p.w;
  const table_memory<Source::stride> memory(memory_plan::small_bytes, memory_plan::large_bytes);
  Source::template prepare<256>(w, memory);
  bool& flag = *static_cast<bool*>(__cvta_shared_to_generic(memory.small + Source::map_bytes));
  const Source source(memory);
  const std::uint32_t lane = threadIdx.x % 32, warp = warp_of_block();
  const std::uint32_t first_col = warp % col_warps * (tiles * 16),
                      warp_token = warp / col_warps * (token_tiles * 8);
  const std::uint32_t weights = memory.large, tokens = memory.large + memory_plan::stage_place;
  const std::uint32_t begin = s.split.begin(blockIdx.x), end = s.split.begin(blockIdx.x + 1);

  for (std::uint32_t unit = begin; unit < end;) {
    const std::uint32_t tile = unit / s.split.depth, first_step = unit % s.split.depth;
    const std::uint32_t last_step = min(s.split.depth, first_step + (end - unit));
    unit += last_step - first_step;
    const std::uint32_t first_token = tile % s.token_tiles * Tokens, col_tile = tile / s.token_tiles;
    const auto copy_tokens = [&](std::uint32_t step) {
      if (step < last_step) {
        const std::uint32_t row = threadIdx.x / 8, chunk = threadIdx.x % 8;
        const bf16* from = s.x.data + index_t{first_token + row} * s.x.stride + (step * 64 + chunk * 8);
#pragma unroll
        for (int i = 0; i < Tokens / 32; ++i)
          copy_async(tokens + step % stages * memory_plan::stage_bytes + token_chunk(row + i * 32, chunk),
                     from + i * 32 * s.x.stride, first_token + row + i * 32 < s.x.rows);
      }
      copies_commit();
    };
    __syncthreads();  // the table; the memory of the tile before
#pragma unroll
    for (int i = 0; i < stages - 1; ++i) copy_tokens(first_step + i);
    weight_stager<Source> stager(w, first_step, col_tile * 2);
    stager.load(w);
    float sum[tiles * token_tiles][4] = {};
    for (std::uint32_t step = first_step; step < last_step; ++step) {
      const std::uint32_t weight_place =
          weights + step % memory_plan::weight_buffers * memory_plan::weight_bytes;
      stager.store(w, source, weight_place);
      if (step + 1 < last_step) stager.load(w);
      copies_wait<stages - 2>();
      __syncthreads();
      copy_tokens(step + stages - 1);
      const std::uint32_t token_place = tokens + step % stages * memory_plan::stage_bytes;
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        std::uint32_t a[tiles][4];
#pragma unroll
        for (int i = 0; i < tiles; ++i)
          load_matrix_transposed(a[i], weight_place + weight_chunk(k * 16 + lane / 16 * 8 + lane % 8,
                                                                   first_col / 8 + i * 2 + lane / 8 % 2));
#pragma unroll
        for (int n = 0; n < token_tiles; n += 2) {
          std::uint32_t b[4];
          load_matrix(b, token_place + token_chunk(warp_token + n * 8 + lane / 16 * 8 + lane % 8,
                                                   k * 2 + lane / 8 % 2));
#pragma unroll
          for (int i = 0; i < tiles; ++i) {
            mma_bf16(sum[i * token_tiles + n], a[i], b[0], b[1]);
            mma_bf16(sum[i * token_tiles + n + 1], a[i], b[2], b[3]);
          }
        }
      }
      if (memory_plan::weight_buffers == 1) __syncthreads();
    }
    copies_wait<0>();
    __syncthreads();
    const bool whole = first_step == 0 && last_step == s.split.depth;
    if (add_parts<tiles * token_tiles, 256>(s, tile, blockIdx.x, whole, sum, true, flag))
      write_sums<tiles, token_tiles>(s.p, sum, memory.large + warp * write_bytes,
                                     index_t{col_tile} * transposed_cols + first_col,
                                     first_token + warp_token);
  }
}

}  // namespace pesc::gpu::detail
