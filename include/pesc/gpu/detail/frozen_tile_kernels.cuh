// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/gpu/detail/frozen_plain_kernels.cuh"
#include "pesc/gpu/detail/frozen_source.cuh"
#include "pesc/gpu/detail/work_split.cuh"

// Products y (+)= x Wᵀ for many tokens, 64 of them a tile. Weights go from global memory (from its cache, but
// for the first tile of tokens) to registers, are decoded and scaled there exactly and are the left operand
// of mma.m16n8k16; tokens come through a ring of stages in shared memory. Blocks take ranges of equal length
// of the depth of all tiles.

namespace pesc::gpu::detail {

/// \brief Rounds rows to bfloat16; zeros in the columns up to the stride of `to`.
template <int Threads>
__global__ void __launch_bounds__(Threads)
    round_tokens_kernel(matrix_view<const float, device_space> from, matrix_view<bf16, device_space> to,
                        bool vectors) {
  const index_t i = blockIdx.x * index_t{Threads} + threadIdx.x;
  const index_t pieces = to.stride / 4;
  if (i >= from.rows * pieces) return;
  const index_t row = i / pieces, col = i % pieces * 4;
  const float* x = from.row(row) + col;
  float4 v;
  if (vectors && col + 4 <= from.cols) {
    v = *reinterpret_cast<const float4*>(x);
  } else {
    v.x = col < from.cols ? x[0] : 0.0f;
    v.y = col + 1 < from.cols ? x[1] : 0.0f;
    v.z = col + 2 < from.cols ? x[2] : 0.0f;
    v.w = col + 3 < from.cols ? x[3] : 0.0f;
  }
  *reinterpret_cast<uint2*>(to.row(row) + col) = make_uint2(bf16_pair(v.x, v.y), bf16_pair(v.z, v.w));
}

/// \brief A product for the kernels that cut tiles into ranges of depth.
struct tiled_product {
  frozen_product p;
  matrix_view<const bf16, device_space>
      x;  ///< rounded; the stride is a multiple of 64, with zeros behind the columns
  work_split split;
  std::uint32_t token_tiles = 1;  ///< tiles follow one another in the order of tokens
  float4* partial = nullptr;      ///< two for each block
  unsigned* tickets = nullptr;    ///< one for each block
};

/// \brief Adds the sums that blocks have of one tile. `Pieces` is the number of registers of a thread, by
/// four.
///
/// A block has at most two tiles that it shares: the first of its range, and the last. The owner of the first
/// part of a tile lends the ticket.
/// \returns true for the block that comes last; its sums are then those of the tile, added in the order of
/// the depth
template <int Pieces, int Threads>
__device__ bool add_parts(const tiled_product& s, std::uint32_t tile, std::uint32_t block, bool whole,
                          float (&sum)[Pieces][4], bool holds, bool& flag) {
  if (whole) return true;
  const auto part = [&](std::uint32_t owner) {
    const bool first = s.split.begin(owner) / s.split.depth == tile;
    return s.partial + index_t{2 * owner + (first ? 0 : 1)} * (Pieces * Threads) + threadIdx.x;
  };
  if (holds) {
    float4* const mine = part(block);
#pragma unroll
    for (int i = 0; i < Pieces; ++i)
      mine[i * Threads] = make_float4(sum[i][0], sum[i][1], sum[i][2], sum[i][3]);
  }
  const std::uint32_t first = s.split.first_owner(tile), owners = s.split.owners(tile);
  __syncthreads();
  if (threadIdx.x == 0) flag = last_of(s.tickets + first, owners);
  __syncthreads();
  if (!flag) return false;
  if (!holds) return true;
#pragma unroll
  for (int i = 0; i < Pieces; ++i) sum[i][0] = sum[i][1] = sum[i][2] = sum[i][3] = 0.0f;
  for (std::uint32_t owner = first; owner < first + owners; ++owner) {
    const float4* const theirs = part(owner);
#pragma unroll
    for (int i = 0; i < Pieces; ++i) {
      const float4 v = __ldcg(theirs + i * Threads);
      sum[i][0] += v.x;
      sum[i][1] += v.y;
      sum[i][2] += v.z;
      sum[i][3] += v.w;
    }
  }
  return true;
}

/// \brief Bytes of shared memory of a warp in `write_sums`.
inline constexpr std::uint32_t write_bytes = 32 * 20 * 4;

/// \brief Writes sums of a warp: `Tiles` times 16 features of `TokenTiles` times 8 tokens.
///
/// They go through shared memory, 16 features of 32 tokens at a time, so that lanes write 16 bytes.
/// \param memory  of the warp
template <int Tiles, int TokenTiles>
__device__ void write_sums(const frozen_product& p, const float (&sum)[Tiles * TokenTiles][4],
                           std::uint32_t memory, index_t feature, index_t token) {
  const std::uint32_t lane = threadIdx.x % 32;
  // Rows of 20 floats; eight lanes read four chunks of rows r and r + 4: all banks are used on both ways.
  const std::uint32_t row = lane / 8 + lane / 4 % 2 * 4, chunk = lane % 4;
  const std::uint32_t to = memory + (lane % 4 * 40 + lane / 4) * 4,
                      from = memory + (row * 20 + chunk * 4) * 4;
  const bool vectors = reinterpret_cast<std::uintptr_t>(p.y.data) % 16 == 0 && p.y.stride % 4 == 0;
  float* y = p.y.data + (token + row) * p.y.stride + feature + chunk * 4;
  const index_t rows = p.y.rows - token - row, cols = p.y.cols - feature - chunk * 4;
#pragma unroll
  for (int i = 0; i < Tiles; ++i)
#pragma unroll
    for (int first = 0; first < TokenTiles; first += 4) {
      __syncwarp();
#pragma unroll
      for (int n = 0; n < 4; ++n)
#pragma unroll
        for (int j = 0; j < 4; ++j)
          store_shared(to + (n * 160 + j % 2 * 20 + j / 2 * 8) * 4,
                       __float_as_uint(sum[i * TokenTiles + first + n][j]));
      __syncwarp();
#pragma unroll 1
      for (int n = 0; n < 4; ++n) {
        if ((first + n) * 8 >= rows || i * 16 >= cols) continue;
        const uint4 bits = load_shared_16(from + n * 640);
        const float v[4] = {__uint_as_float(bits.x), __uint_as_float(bits.y), __uint_as_float(bits.z),
                            __uint_as_float(bits.w)};
        float* const place = y + (first + n) * 8 * p.y.stride + i * 16;
        if (vectors && i * 16 + 4 <= cols) {
          float4 out = make_float4(v[0], v[1], v[2], v[3]);
          if (p.accumulate) {
            const float4 old = *reinterpret_cast<const float4*>(place);
            out = make_float4(old.x + v[0], old.y + v[1], old.z + v[2], old.w + v[3]);
          }
          *reinterpret_cast<float4*>(place) = out;
        } else {
          for (int j = 0; j < 4 && i * 16 + j < cols; ++j) place[j] = p.accumulate ? place[j] + v[j] : v[j];
        }
      }
    }
}

inline constexpr int tile_tokens = 64;
inline constexpr std::uint32_t tile_stage_bytes = tile_tokens * 128;  ///< of one cell

/// \brief Shared memory: the stages; with two warps a row of weights, one hands its sums over in the same
/// place.
template <class Source, int Tiles, int DepthWarps>
struct tile_memory {
  static constexpr int stages = 4;
  static constexpr std::uint32_t stage_bytes = tile_stage_bytes * DepthWarps;
  static constexpr std::uint32_t large_bytes = stages * stage_bytes;
  static constexpr std::uint32_t scale_bytes =
      Source::scaled ? Tiles * 256 * Source::units : 0;  ///< of a warp
  static constexpr std::uint32_t flag_place = Source::map_bytes + 8 * scale_bytes;
  static constexpr std::uint32_t small_bytes = flag_place + 16;
};

/// \brief What a block of `frozen_tile_kernel` does with one tile, and the place of its threads in it.
///
/// Cheap enough to make it again after the product rather than to keep it in registers meanwhile.
template <int Tiles, int DepthWarps>
struct tile_place {
  static constexpr int row_warps = 8 / DepthWarps;
  std::uint32_t tile, first_step, last_step;  ///< steps: `DepthWarps` cells each
  std::uint32_t first_token, first_tile;      ///< of the warp, in tokens and tiles of 16 rows
  std::uint32_t row_warp, depth_warp;
  bool has_rows;

  __device__ tile_place(const tiled_product& s, std::uint32_t number) : tile{number} {
    const std::uint32_t begin = s.split.begin(blockIdx.x), end = s.split.begin(blockIdx.x + 1);
    const std::uint32_t tile_begin = tile * s.split.depth;
    first_step = max(begin, tile_begin) - tile_begin;
    last_step = min(end - tile_begin, s.split.depth);
    const std::uint32_t warp = warp_of_block();
    row_warp = warp % row_warps;
    depth_warp = warp / row_warps;
    first_token = tile % s.token_tiles * tile_tokens;
    first_tile = (tile / s.token_tiles * row_warps + row_warp) * Tiles;
    has_rows = first_tile < static_cast<std::uint32_t>(s.p.w.layout.tile_count());
  }
  __device__ bool whole(const tiled_product& s) const {
    return first_step == 0 && last_step == s.split.depth;
  }
};

/// \brief Copies of tokens to the stages: a thread moves 16 bytes of two tokens of each cell, permuted so
/// that the lanes that read two neighbouring tokens use all banks.
template <class Source, int Tiles, int DepthWarps>
struct token_stages {
  using memory_plan = tile_memory<Source, Tiles, DepthWarps>;
  std::uint32_t from;  ///< byte of x
  std::uint32_t to;
  bool inside, second_inside;

  __device__ token_stages(const tiled_product& s, std::uint32_t first_token, std::uint32_t first_step,
                          std::uint32_t memory) {
    const std::uint32_t row = threadIdx.x / 8, chunk = threadIdx.x % 8;
    from = ((first_token + row) * static_cast<std::uint32_t>(s.x.stride) + first_step * DepthWarps * 64 +
            chunk * 8) *
           2;
    inside = first_token + row < s.x.rows;
    second_inside = first_token + row + 32 < s.x.rows;
    to = memory + row * 128 + (chunk * 16 ^ row % 2 * 64);
    keep(to);
  }

  __device__ void copy(const tiled_product& s, std::uint32_t step, std::uint32_t last_step) {
    if (step < last_step) {
#pragma unroll
      for (int i = 0; i < DepthWarps; ++i) {
        const std::uint32_t place =
            to + step % memory_plan::stages * memory_plan::stage_bytes + i * tile_stage_bytes;
        const char* const x = reinterpret_cast<const char*>(s.x.data) + from;
        copy_async(place, x + i * 128, inside);
        copy_async(place + 32 * 128, x + i * 128 + 64 * s.x.stride, second_inside);
      }
      from += DepthWarps * 128;
    }
    copies_commit();
  }
};

/// \brief The scales of a tile and run of four cells in shared memory, where they take no registers:
/// [unit][cell][row].
///
/// Cells lie in the order 0, 2, 1, 3, so that the lanes that write them use all banks.
template <class Scales, int Units>
__device__ void store_scales(const Scales& scales, std::uint32_t place) {
  const std::uint32_t lane = threadIdx.x % 32, row = lane / 4 + lane % 4 / 2 * 8;
#pragma unroll
  for (int i = 0; i < 2; ++i)
#pragma unroll
    for (int unit = 0; unit < Units; ++unit)
      store_shared(place + (unit * 4 + i * 2 + lane % 2) * 64 + row * 4,
                   __float_as_uint(scales.value[i * Units + unit]));
}

/// \brief Adds the products of the steps of `place` to the sums of the warp.
template <class Source, int Tiles, int DepthWarps>
__device__ void multiply_tile(const tiled_product& s, const Source& source, std::uint32_t memory,
                              std::uint32_t scale_memory, std::uint32_t number,
                              float (&sum)[Tiles * tile_tokens / 8][4]) {
  using memory_plan = tile_memory<Source, Tiles, DepthWarps>;
  constexpr int token_tiles = tile_tokens / 8, stages = memory_plan::stages;
  const frozen_weight& w = s.p.w;
  const tile_place<Tiles, DepthWarps> place(s, number);
  const std::uint32_t lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  std::uint32_t read_place = memory + place.depth_warp * tile_stage_bytes + g * 128 + (t * 16 ^ g % 2 * 64);
  keep(read_place);
  const std::uint32_t last_step = place.last_step;
  const auto has_work = [&](std::uint32_t step) { return place.has_rows && step < last_step; };
  token_stages<Source, Tiles, DepthWarps> tokens(s, place.first_token, place.first_step, memory);
#pragma unroll
  for (int i = 0; i < stages - 1; ++i) tokens.copy(s, place.first_step + i, last_step);
  typename Source::record records[Tiles];
  const typename Source::place scale_place(w, place.has_rows ? place.first_tile : 0);
  const std::uint8_t* codes = w.codes + lane * 16;
  if (has_work(place.first_step)) {
    codes += w.layout.offset(place.first_tile, place.first_step * DepthWarps + place.depth_warp);
#pragma unroll
    for (int i = 0; i < Tiles; ++i) records[i].load(codes + i * Source::record_bytes);
  }
  for (std::uint32_t step = place.first_step; step < last_step;) {
    std::uint32_t cell = step * DepthWarps + place.depth_warp;
    const std::uint32_t run_last = min(last_step, step + (4 - cell % 4 + DepthWarps - 1) / DepthWarps);
    if constexpr (Source::scaled)
      if (has_work(step)) {
        typename Source::scales scales[Tiles];
#pragma unroll
        for (int i = 0; i < Tiles; ++i) scales[i].load(w, scale_place, i, cell / 4);
        __syncwarp();
#pragma unroll
        for (int i = 0; i < Tiles; ++i) {
          scales[i].decode(w, source.pairs);
          store_scales<typename Source::scales, Source::units>(scales[i],
                                                               scale_memory + i * 256 * Source::units);
        }
        __syncwarp();
      }
    for (; step < run_last; ++step, cell += DepthWarps) {
      copies_wait<stages - 2>();
      __syncthreads();
      tokens.copy(s, step + stages - 1, last_step);
      codes += DepthWarps * 4 * Source::record_bytes;
      if (!has_work(step)) continue;
      const bool more = has_work(step + 1);
      const std::uint32_t cell_scales = scale_memory + (cell % 2 * 2 + cell / 2 % 2) * 64 + g * 4;
      const std::uint32_t stage = read_place + step % stages * memory_plan::stage_bytes;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        uint4 b[token_tiles];
#pragma unroll
        for (int n = 0; n < token_tiles; ++n) b[n] = load_shared_16((stage ^ half * 64) + n * 1024);
#pragma unroll
        for (int i = 0; i < Tiles; ++i) {
          float upper = 1.0f, lower = 1.0f;
          if constexpr (Source::scaled) {
            const std::uint32_t from =
                cell_scales + ((i * Source::units + (Source::units == 2 ? half : 0)) * 4) * 64;
            upper = __uint_as_float(load_shared(from));
            lower = __uint_as_float(load_shared(from + 32));
          }
#pragma unroll
          for (int odd = 0; odd < 2; ++odd) {
            std::uint32_t a[4];
            source.fragment(a, records[i], half * 2 + odd, upper, lower);
            // The next cell comes into the same registers while this one is multiplied.
            if (half == 1 && odd == 1 && more) records[i].load(codes + i * Source::record_bytes);
#pragma unroll
            for (int n = 0; n < token_tiles; ++n)
              mma_bf16(sum[i * token_tiles + n], a, odd == 0 ? b[n].x : b[n].z, odd == 0 ? b[n].y : b[n].w);
          }
        }
      }
    }
  }
}

/// \brief Warps of the second half of the depth hand their sums to those of the first.
template <int Registers>
__device__ void add_depth_warps(float (&sum)[Registers][4], std::uint32_t place, bool gives) {
#pragma unroll
  for (int i = 0; i < Registers; ++i)
    if (gives)
      store_shared_16(place + i * 512, __float_as_uint(sum[i][0]), __float_as_uint(sum[i][1]),
                      __float_as_uint(sum[i][2]), __float_as_uint(sum[i][3]));
  __syncthreads();
#pragma unroll
  for (int i = 0; i < Registers; ++i)
    if (!gives) {
      const uint4 v = load_shared_16(place + i * 512);
      sum[i][0] += __uint_as_float(v.x);
      sum[i][1] += __uint_as_float(v.y);
      sum[i][2] += __uint_as_float(v.z);
      sum[i][3] += __uint_as_float(v.w);
    }
}

/// \brief A block of 8 warps has `8 / DepthWarps` times `Tiles` times 16 features of 64 tokens. The number of
/// cells of a row must be a multiple of `DepthWarps`.
template <class Source, int Tiles, int DepthWarps>
__global__ void __launch_bounds__(256, 1) frozen_tile_kernel(const __grid_constant__ tiled_product s) {
  using memory_plan = tile_memory<Source, Tiles, DepthWarps>;
  constexpr int pieces = Tiles * tile_tokens / 8;
  static_assert(DepthWarps == 1 || 4 * pieces * 512 <= memory_plan::large_bytes);
  const table_memory<Source::stride> memory(memory_plan::small_bytes, memory_plan::large_bytes);
  Source::template prepare<256>(s.p.w, memory);
  const Source source(memory);
  const std::uint32_t last_tile = (s.split.begin(blockIdx.x + 1) - 1) / s.split.depth;
  for (std::uint32_t tile = s.split.begin(blockIdx.x) / s.split.depth; tile <= last_tile; ++tile) {
    __syncthreads();  // the table; the stages of the tile before
    float sum[pieces][4] = {};
    multiply_tile<Source, Tiles, DepthWarps>(
        s, source, memory.large,
        memory.small + Source::map_bytes + warp_of_block() * memory_plan::scale_bytes, tile, sum);
    const tile_place<Tiles, DepthWarps> place(s, tile);
    copies_wait<0>();
    __syncthreads();
    if constexpr (DepthWarps == 2)
      add_depth_warps(sum, memory.large + (place.row_warp * pieces * 32 + threadIdx.x % 32) * 16,
                      place.depth_warp == 1);
    const bool holds = place.has_rows && place.depth_warp == 0;
    bool& flag = *static_cast<bool*>(__cvta_shared_to_generic(memory.small + memory_plan::flag_place));
    if (!add_parts<pieces, 256 / DepthWarps>(s, tile, blockIdx.x, place.whole(s), sum, holds, flag)) continue;
    if (DepthWarps == 2) __syncthreads();  // the sums of the other half of the depth have been read
    if (holds)
      write_sums<Tiles, tile_tokens / 8>(s.p, sum, memory.large + place.row_warp * write_bytes,
                                         index_t{place.first_tile} * 16, place.first_token);
  }
}

}  // namespace pesc::gpu::detail
