// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/gpu/detail/frozen_plain_kernels.cuh"
#include "pesc/gpu/detail/frozen_source.cuh"
#include "pesc/gpu/detail/work_split.cuh"

// Products y (+)= x Wᵀ for few tokens, which the memory of the weights limits. Weights go from global memory
// to registers, are decoded there and are the left operand of mma.m16n8k16; tokens are the right one. The
// depth is cut into slices, for each of which some blocks hold their part of x in shared memory; the warps of
// a block take ranges of equal length of the cells of all tiles. Scales are applied to the sums of a block of
// weights: cheaper than scaling the weights, and more exact.

namespace pesc::gpu::detail {

/// \brief A product for `frozen_stream_kernel`. A tile is `Tiles` times 16 features.
struct stream_product {
  frozen_product p;
  std::uint32_t tiles = 0;
  std::uint32_t cells = 0;
  std::uint32_t slices = 1;
  std::uint32_t slice_blocks = 1;
  std::uint32_t large_bytes = 0;  ///< of shared memory: x
  std::uint32_t small_bytes = 0;  ///< notes, and the sums of tiles that end inside the range of a warp
  bool x_vectors = false;         ///< rows of x are aligned to 16 bytes
  bool y_vectors = false;         ///< rows of y are
  float* partial = nullptr;  ///< [slice][tile + block][token][feature], the tiles of a slice and its blocks
  unsigned* tickets = nullptr;  ///< one a tile

  PESC_HOST_DEVICE std::uint32_t first_cell(std::uint32_t slice) const { return slice * cells / slices; }
  PESC_HOST_DEVICE work_split split(std::uint32_t slice) const {
    return {tiles, first_cell(slice + 1) - first_cell(slice), slice_blocks};
  }
};

/// \brief Bytes between rows of x in shared memory: lanes of two tokens use all banks.
PESC_HOST_DEVICE constexpr std::uint32_t stream_pitch(std::uint32_t cells) { return cells * 128 + 64; }

/// \brief Floats between the tokens of a tile's sums in shared memory: the lanes of a warp use all banks.
template <int Tiles>
inline constexpr int sum_pitch = Tiles * 16 + 4;

inline constexpr int stream_warps = 8;
inline constexpr int stream_most_tiles = 32;  ///< of a block
inline constexpr int stream_most_slices = 16;

/// \brief What the warps of a block tell one another. Not a static variable, which would move the table from
/// its place.
struct stream_notes {
  std::uint32_t heads[stream_warps];  ///< first tile of each warp
  std::uint32_t tails[stream_warps];  ///< last one
  /// Of the tiles of the block: bits of the warps whose last tile it is, and bit 8 if it ends inside the
  /// range of a warp.
  std::uint32_t sums[stream_most_tiles];
  std::uint32_t last[stream_most_tiles];  ///< this block came last to it
  /// [slice][tile of the block]: 64 times the first part of it there + their number.
  std::uint32_t parts[stream_most_slices * stream_most_tiles];
};

/// \brief Rounds columns [first, first + 64 cells) of x to bfloat16 into shared memory.
__device__ inline void stage_tokens(const stream_product& s, std::uint32_t first, std::uint32_t cells,
                                    std::uint32_t place) {
  const auto& x = s.p.x;
  const std::uint32_t pieces = cells * 16;  // of four columns
  const std::uint32_t tokens = static_cast<std::uint32_t>(x.rows);
  std::uint32_t token = threadIdx.x / pieces, piece = threadIdx.x % pieces;
  while (token < tokens) {
    const float* from = x.row(token) + first * 64 + piece * 4;
    float4 v;
    if (s.x_vectors)
      v = *reinterpret_cast<const float4*>(from);
    else
      v = make_float4(from[0], from[1], from[2], from[3]);
    store_shared_8(place + token * stream_pitch(cells) + piece * 8, bf16_pair(v.x, v.y), bf16_pair(v.z, v.w));
    piece += stream_warps * 32;
    while (piece >= pieces) {
      piece -= pieces;
      ++token;
    }
  }
}

template <class Source>
inline constexpr std::uint32_t stream_small_bytes = Source::map_bytes + sizeof(stream_notes);

/// \brief The registers of a warp in `frozen_stream_kernel`.
template <class Source, int Tiles, int TokenTiles>
struct stream_warp {
  using record = typename Source::record;
  static constexpr bool scale_sums = Source::scaled && !Source::exact;

  float sum[Tiles][TokenTiles][4];
  record ring[4][Tiles];  ///< a cell of a run is always in the same place
  typename Source::scales scales[Tiles], pending[Tiles];
  std::uint32_t tokens[TokenTiles];  ///< shared address of what the lane reads of x

  __device__ void clear() {
#pragma unroll
    for (int i = 0; i < Tiles; ++i)
#pragma unroll
      for (int n = 0; n < TokenTiles; ++n)
#pragma unroll
        for (int j = 0; j < 4; ++j) sum[i][n][j] = 0.0f;
  }

  __device__ void load_cell(int cell, const std::uint8_t* run_place) {
#pragma unroll
    for (int i = 0; i < Tiles; ++i) ring[cell][i].load(run_place + (cell * 4 + i) * Source::record_bytes);
  }
  __device__ void load_scales(const frozen_weight& w, const typename Source::place& place,
                              std::uint32_t run) {
#pragma unroll
    for (int i = 0; i < Tiles; ++i) pending[i].load(w, place, i, run);
  }
  __device__ void take_scales(const frozen_weight& w, const Source& source) {
#pragma unroll
    for (int i = 0; i < Tiles; ++i) {
      scales[i] = pending[i];
      scales[i].decode(w, source.pairs);
    }
  }

  /// \brief Adds the products of a cell.
  ///
  /// \param run_bytes  from the first cell of x in shared memory to that of the run
  __device__ void multiply(const Source& source, std::uint32_t run_bytes, int cell) {
    float part[Tiles][TokenTiles][4] = {};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      uint4 b[TokenTiles];
#pragma unroll
      for (int n = 0; n < TokenTiles; ++n)
        b[n] = load_shared_16(tokens[n] + run_bytes + (cell * 128 + half * 64));
#pragma unroll
      for (int step = half * 2; step < half * 2 + 2; ++step)
#pragma unroll
        for (int i = 0; i < Tiles; ++i) {
          std::uint32_t a[4];
          source.fragment(a, ring[cell][i], step, 1.0f, 1.0f);
#pragma unroll
          for (int n = 0; n < TokenTiles; ++n)
            mma_bf16(scale_sums ? part[i][n] : sum[i][n], a, step % 2 == 0 ? b[n].x : b[n].z,
                     step % 2 == 0 ? b[n].y : b[n].w);
        }
      if constexpr (scale_sums)
        if (half == 1 || Source::units == 2) add_scaled_part(part, cell, Source::units == 2 ? half : 0);
    }
  }

  __device__ void add_scaled_part(float (&part)[Tiles][TokenTiles][4], int cell, int unit) {
#pragma unroll
    for (int i = 0; i < Tiles; ++i) {
      const float upper = scales[i].get(cell, unit, 0), lower = scales[i].get(cell, unit, 1);
#pragma unroll
      for (int n = 0; n < TokenTiles; ++n)
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          sum[i][n][j] += (j < 2 ? upper : lower) * part[i][n][j];
          part[i][n][j] = 0.0f;
        }
    }
  }

  /// \brief Writes the sums as [token][feature] to shared memory.
  __device__ void store(std::uint32_t place, std::uint32_t token_count) const {
    const std::uint32_t g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int n = 0; n < TokenTiles; ++n)
#pragma unroll
      for (int odd = 0; odd < 2; ++odd) {
        const std::uint32_t token = n * 8 + t * 2 + odd;
        if (token >= token_count) continue;
#pragma unroll
        for (int i = 0; i < Tiles; ++i)
#pragma unroll
          for (int lower = 0; lower < 2; ++lower)
            store_shared(place + (token * sum_pitch<Tiles> + i * 16 + lower * 8 + g) * 4,
                         __float_as_uint(sum[i][n][lower * 2 + odd]));
      }
  }
};

/// \brief The part of a block: adds the sums of its warps, then those of the blocks of a tile. All threads
/// take part.
template <int Tiles>
struct stream_result {
  static constexpr std::uint32_t features = Tiles * 16;
  static constexpr std::uint32_t threads = stream_warps * 32;
  const stream_product& s;
  work_split split;
  std::uint32_t slice, block, begin, end, first_tile, tile_count;
  stream_notes& notes;

  __device__ bool whole(std::uint32_t tile) const {
    return s.slices == 1 && tile * split.depth >= begin && (tile + 1) * split.depth <= end;
  }

  /// \brief Four features of a token to y.
  __device__ void write(std::uint32_t tile, std::uint32_t token, std::uint32_t feature,
                        const float4& v) const {
    const index_t col = index_t{tile} * features + feature, left = s.p.y.cols - col;
    float* y = s.p.y.row(token) + col;
    if (s.y_vectors && left >= 4) {
      float4 out = v;
      if (s.p.accumulate) {
        const float4 old = *reinterpret_cast<const float4*>(y);
        out = make_float4(old.x + v.x, old.y + v.y, old.z + v.z, old.w + v.w);
      }
      *reinterpret_cast<float4*>(y) = out;
    } else {
      const float values[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
      for (int j = 0; j < 4; ++j)
        if (j < left) y[j] = s.p.accumulate ? y[j] + values[j] : values[j];
    }
  }

  /// \brief Calls `f(tile, place)` for all tiles of the block and all groups of four features, counted
  /// [token][features / 4].
  template <class F>
  __device__ void for_elements(F&& f) const {
    const std::uint32_t elements = static_cast<std::uint32_t>(s.p.y.rows) * (features / 4);
    for (std::uint32_t i = threadIdx.x; i < tile_count * elements; i += threads) {
      const std::uint32_t tile = i / elements;
      f(tile, i - tile * elements);
    }
  }

  __device__ float4* part(std::uint32_t number) const {
    return reinterpret_cast<float4*>(s.partial) + index_t{number} * s.p.y.rows * (features / 4);
  }
  __device__ static float4 plus(const float4& a, const float4& b) {
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
  }
  __device__ static float4 load_sums(std::uint32_t place) {
    const uint4 bits = load_shared_16(place);
    return make_float4(__uint_as_float(bits.x), __uint_as_float(bits.y), __uint_as_float(bits.z),
                       __uint_as_float(bits.w));
  }

  /// \brief Notes for each tile where its sums and its parts are.
  __device__ void prepare() const {
    for (std::uint32_t i = threadIdx.x; i < tile_count; i += threads) {
      std::uint32_t sums = 0;
#pragma unroll
      for (int w = 0; w < stream_warps; ++w) {
        if (notes.tails[w] == first_tile + i)
          sums |= 1u << w;
        else if (notes.heads[w] <= first_tile + i && first_tile + i < notes.tails[w])
          sums |= 1u << stream_warps;
      }
      notes.sums[i] = sums;
    }
    for (std::uint32_t i = threadIdx.x; i < tile_count * s.slices; i += threads) {
      const std::uint32_t of_slice = i / tile_count, tile = i - of_slice * tile_count;
      const work_split other = s.split(of_slice);
      const std::uint32_t first = other.first_owner(first_tile + tile);
      notes.parts[i] = (of_slice * (s.tiles + s.slice_blocks) + first_tile + tile + first) * 64 +
                       other.owners(first_tile + tile);
    }
  }

  /// \brief Adds the sums of the warps, in the order of their cells.
  __device__ void combine_warps(std::uint32_t tail_sums, std::uint32_t closing_sums) const {
    const std::uint32_t sums_bytes = static_cast<std::uint32_t>(s.p.y.rows) * sum_pitch<Tiles> * 4;
    for_elements([&](std::uint32_t tile, std::uint32_t element) {
      const std::uint32_t token = element / (features / 4), feature = element % (features / 4) * 4;
      const std::uint32_t place = (token * sum_pitch<Tiles> + feature) * 4;
      const std::uint32_t sums = notes.sums[tile];
      float4 v = make_float4(0, 0, 0, 0);
#pragma unroll
      for (int w = 0; w < stream_warps; ++w)
        if ((sums >> w & 1u) != 0) v = plus(v, load_sums(tail_sums + w * sums_bytes + place));
      // The warp in whose range the tile ends comes after those whose ranges end in it.
      if (sums >> stream_warps != 0) v = plus(v, load_sums(closing_sums + tile * sums_bytes + place));
      if (whole(first_tile + tile))
        write(first_tile + tile, token, feature, v);
      else
        part(slice * (s.tiles + s.slice_blocks) + first_tile + tile + block)[element] = v;
    });
  }

  /// \brief The last block of each tile adds the parts, in the order of the depth.
  __device__ void combine_blocks() const {
    __syncthreads();
    for (std::uint32_t i = threadIdx.x; i < tile_count; i += threads) {
      unsigned expected = 0;
      for (std::uint32_t j = 0; j < s.slices; ++j) expected += notes.parts[j * tile_count + i] % 64;
      notes.last[i] = !whole(first_tile + i) && last_of(s.tickets + first_tile + i, expected) ? 1 : 0;
    }
    __syncthreads();
    for_elements([&](std::uint32_t tile, std::uint32_t element) {
      if (notes.last[tile] == 0) return;
      float4 v = make_float4(0, 0, 0, 0);
      for (std::uint32_t j = 0; j < s.slices; ++j) {
        const std::uint32_t parts = notes.parts[j * tile_count + tile];
        for (std::uint32_t k = 0; k < parts % 64; ++k) v = plus(v, __ldcg(part(parts / 64 + k) + element));
      }
      write(first_tile + tile, element / (features / 4), element % (features / 4) * 4, v);
    });
  }
};

/// \brief The cells of one tile that a warp takes from a run of four.
struct cell_run {
  std::uint32_t tile;
  std::uint32_t run;  ///< of the matrix
  std::uint32_t count;
  std::uint32_t mask;  ///< bits of the cells

  /// \param cell  first cell, from the begin of the slice
  /// \param left  units of the warp from there on
  __device__ cell_run(std::uint32_t in_tile, std::uint32_t slice_cell, std::uint32_t depth,
                      std::uint32_t cell, std::uint32_t left)
      : tile{in_tile}, run{(slice_cell + cell) / 4} {
    const std::uint32_t low = (slice_cell + cell) % 4;
    count = min(min(4 - low, depth - cell), left);
    mask = ((1u << count) - 1) << low;
  }
  __device__ bool has(int cell) const { return (mask >> cell & 1u) != 0; }
  __device__ bool empty() const { return mask == 0; }
};

/// \brief Up to 8 `TokenTiles` tokens.
template <class Source, int Tiles, int TokenTiles>
__global__ void __launch_bounds__(stream_warps * 32, 1)
    frozen_stream_kernel(const __grid_constant__ stream_product s) {
  const frozen_weight& w = s.p.w;
  const std::uint32_t slice = blockIdx.x / s.slice_blocks, block = blockIdx.x % s.slice_blocks;
  const work_split split = s.split(slice);
  const std::uint32_t depth = split.depth, slice_cell = s.first_cell(slice);
  const std::uint32_t begin = split.begin(block), end = split.begin(block + 1);
  const std::uint32_t warp = warp_of_block(), lane = threadIdx.x % 32;
  const std::uint32_t start = begin + warp * (end - begin) / stream_warps;
  const std::uint32_t stop = begin + (warp + 1) * (end - begin) / stream_warps;
  std::uint32_t unit = start;
  std::uint32_t cell = start % depth;
  cell_run now(start / depth, slice_cell, depth, cell, stop - start);

  // Weights first: they take longest.
  stream_warp<Source, Tiles, TokenTiles> state;
  typename Source::place scale_place(w, now.tile * Tiles);
  const std::uint8_t* tile_place = w.codes + w.layout.offset(index_t{now.tile} * Tiles, 0) + lane * 16;
  const auto run_place = [&](std::uint32_t run) {
    return tile_place + index_t{run} * (16 * Source::record_bytes);
  };
  if (!now.empty()) {
#pragma unroll
    for (int i = 0; i < 4; ++i)
      if (now.has(i)) state.load_cell(i, run_place(now.run));
    state.load_scales(w, scale_place, now.run);
  }

  const table_memory<Source::stride> memory(s.small_bytes, s.large_bytes);
  Source::template prepare<stream_warps * 32>(w, memory);
  // A block inside one tile needs only a part of the slice.
  const std::uint32_t first_tile = begin / depth, last_tile = (end - 1) / depth;
  const std::uint32_t x_cell = first_tile == last_tile ? begin % depth : 0;
  const std::uint32_t x_cells = first_tile == last_tile ? end - begin : depth;
  stage_tokens(s, slice_cell + x_cell, x_cells, memory.large);
  stream_notes& notes =
      *static_cast<stream_notes*>(__cvta_shared_to_generic(memory.small + Source::map_bytes));
  if (lane == 0) {
    notes.heads[warp] = start < stop ? start / depth : ~0u;
    notes.tails[warp] = start < stop ? (stop - 1) / depth : ~0u;
  }
  __syncthreads();

  const Source source(memory);
  const std::uint32_t token_count = static_cast<std::uint32_t>(s.p.x.rows);
  const std::uint32_t sums_bytes = token_count * sum_pitch<Tiles> * 4;
  const std::uint32_t closing_sums = memory.small + stream_small_bytes<Source>;
#pragma unroll
  for (int n = 0; n < TokenTiles; ++n) {
    state.tokens[n] =
        memory.large + min(n * 8 + lane / 4, token_count - 1) * stream_pitch(x_cells) + lane % 4 * 16;
    keep(state.tokens[n]);
  }
  const std::uint32_t x_begin = (slice_cell + x_cell) * 128;
  state.clear();
  while (!now.empty()) {
    const std::uint32_t tile = now.tile;
    do {
      unit += now.count;
      cell += now.count;
      const bool ends = cell == depth;
      if (ends) cell = 0;
      const cell_run next(tile + (ends ? 1 : 0), slice_cell, depth, cell, stop - unit);
      state.take_scales(w, source);
      if (ends && !next.empty()) {
        scale_place = typename Source::place(w, next.tile * Tiles);
        tile_place = w.codes + w.layout.offset(index_t{next.tile} * Tiles, 0) + lane * 16;
      }
      if (!next.empty()) state.load_scales(w, scale_place, next.run);
      const std::uint8_t* const next_place = run_place(next.run);
      const std::uint32_t run_bytes = now.run * 512 - x_begin;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (now.has(i)) state.multiply(source, run_bytes, i);
        if (next.has(i)) state.load_cell(i, next_place);
      }
      now = next;
    } while (now.tile == tile && !now.empty());
    if (now.empty()) break;
    state.store(closing_sums + (tile - first_tile) * sums_bytes, token_count);
    state.clear();
  }

  const stream_result<Tiles> result{
      s, split, slice, block, begin, end, first_tile, last_tile - first_tile + 1, notes};
  result.prepare();
  __syncthreads();  // the table and x have served
  if (start < stop) state.store(memory.table + warp * sums_bytes, token_count);
  __syncthreads();
  result.combine_warps(memory.table, closing_sums);
  result.combine_blocks();
}

}  // namespace pesc::gpu::detail
