// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "pesc/gpu/context.cuh"
#include "pesc/gpu/detail/frozen_stream_kernels.cuh"
#include "pesc/gpu/detail/frozen_transposed_kernels.cuh"

// Which kernel forms a product with a frozen weight, with which tile, and how its work is cut into blocks.

namespace pesc::gpu::detail {

/// \brief Bytes between the entries of the table of pairs, for a device of this compute capability.
///
/// Blocks of most consumer devices have 99 KB of shared memory, too little for the wide table and the data
/// beside it.
[[nodiscard]] constexpr int table_stride(int compute_capability) {
  switch (compute_capability) {
    case 80:
    case 87:
    case 90:
    case 100:
    case 101:
    case 103:
    case 110:
      return wide_table;
    default:
      return narrow_table;
  }
}

/// \brief The kernels of the tensor cores.
enum class frozen_kernel : std::uint8_t { stream, tile, transposed };

/// \brief A kernel and its tile.
struct frozen_tuning {
  frozen_kernel kernel = frozen_kernel::stream;
  int row_tiles = 1;    ///< of 16 rows, of a warp; not of `transposed`
  int depth_warps = 1;  ///< warps that share the depth of a tile; of `tile` only
  int tokens = 8;       ///< of a tile
};

/// \brief The kernel for a weight and a number of tokens.
///
/// More tiles of rows share the loads of tokens, but their sums and weights must fit into the registers.
/// Where few tokens leave few tiles, these are smaller, and two warps share the depth of one.
/// \param stride  of the table of pairs
/// \param few_tiles  fewer tiles of the largest size than multiprocessors
/// \param even  the depth is a multiple of 128
[[nodiscard]] constexpr frozen_tuning tune_frozen(element_kind element, int stride, index_t tokens,
                                                  bool transpose, bool few_tiles, bool even) {
  const bool coded = element == element_kind::code4, wide = stride != narrow_table;
  if (transpose) {
    const bool large = wide && element != element_kind::f32 && tokens > 128;
    return {frozen_kernel::transposed, 0, 1, large ? 256 : 64};
  }
  if (tokens <= 8) return {frozen_kernel::stream, coded ? 4 : 1, 1, 8};
  if (tokens <= 16) return {frozen_kernel::stream, coded ? 4 : 1, 1, 16};
  if (tokens <= 32) return {frozen_kernel::stream, coded ? 2 : 1, 1, 32};
  const int row_tiles = coded ? 4 : element == element_kind::f32 ? 1 : 2;
  return {frozen_kernel::tile, row_tiles, coded && wide && few_tiles && even ? 2 : 1, 64};
}

/// \brief The most tokens that `frozen_stream_kernel` takes.
inline constexpr index_t stream_most_tokens = 32;

/// \brief The most parts of a result that slices and blocks make, on average over the tiles.
inline constexpr index_t stream_most_parts = 16;

/// \brief Shared memory of a block of `frozen_stream_kernel`.
struct stream_memory {
  bool possible = false;
  index_t small_bytes = 0;
  index_t large_bytes = 0;
  index_t launch_bytes = 0;
};

template <class Source, int Tiles>
[[nodiscard]] stream_memory stream_memory_of(const device_limits& limits, const stream_product& s,
                                             index_t tokens) {
  const index_t depth = ceil_div(s.cells, s.slices);
  const index_t units = ceil_div(index_t{s.tiles} * depth, s.slice_blocks);
  const index_t block_tiles = (units + depth - 2) / (s.cells / s.slices) + 1;
  const index_t sums = tokens * sum_pitch<Tiles> * 4;
  stream_memory out;
  // The sums of the warps take the place of the table and of x.
  out.large_bytes = std::max(tokens * stream_pitch(static_cast<std::uint32_t>(depth)),
                             stream_warps * sums - 256 * Source::stride);
  out.small_bytes = stream_small_bytes<Source> + (block_tiles - 1) * sums;
  out.launch_bytes =
      table_memory<Source::stride>::bytes(limits.compute_capability, out.small_bytes, out.large_bytes);
  out.possible = block_tiles <= stream_most_tiles && out.launch_bytes <= limits.shared_bytes;
  return out;
}

/// \brief Cuts a product for few tokens into slices and blocks.
///
/// More slices mean that a block reads less of x, and that more parts are added at the end; the sum of bytes
/// decides, with those of the weights weighed by how evenly they are spread. `slices` is 0 where nothing
/// fits.
template <class Source, int Tiles>
[[nodiscard]] stream_product plan_stream(const device_limits& limits, index_t rows, index_t cols,
                                         index_t tokens) {
  stream_product best;
  best.slices = 0;
  double least = 0;
  const index_t cells = cols / 64, tiles = ceil_div(rows, 64) * (4 / Tiles), units = tiles * cells;
  for (index_t waves = 1; waves <= 8 && best.slices == 0; ++waves) {
    // At least two cells a warp, and not too many parts of a tile.
    const index_t blocks = std::min(
        {limits.multiprocessors * waves, ceil_div(units, 2 * stream_warps), tiles * (stream_most_parts / 2)});
    for (index_t slices = 1; slices <= std::min({blocks, cells, index_t{stream_most_slices}}); ++slices) {
      if (tiles * slices + blocks > tiles * stream_most_parts || units * blocks >= index_t{1} << 32) break;
      stream_product s;
      s.tiles = static_cast<std::uint32_t>(tiles);
      s.cells = static_cast<std::uint32_t>(cells);
      s.slices = static_cast<std::uint32_t>(slices);
      s.slice_blocks = static_cast<std::uint32_t>(blocks / slices);
      if (!stream_memory_of<Source, Tiles>(limits, s, tokens).possible) continue;
      const index_t depth = ceil_div(cells, slices), used = s.slice_blocks * slices;
      const double even = static_cast<double>(depth * slices * blocks) / static_cast<double>(cells * used);
      const double weights = static_cast<double>(units * Tiles * Source::record_bytes);
      const double x = static_cast<double>(used * tokens * depth * 256);
      const double parts = slices == 1 ? 0.0 : static_cast<double>(8 * rows * tokens * slices);
      const double cost = weights * even + x + parts;
      if (best.slices != 0 && cost >= least) continue;
      least = cost;
      best = s;
    }
  }
  return best;
}

/// \brief Floats of the parts of a product for few tokens, as many as any plan takes, so that scratch for
/// many tokens suffices for fewer.
[[nodiscard]] inline index_t stream_part_elements(index_t rows, index_t tokens) {
  return round_up(rows, 64) * std::min(tokens, stream_most_tokens) * stream_most_parts;
}

/// \brief The most blocks among which tiles are cut: as many as a device runs at once, with at least four
/// steps of depth each.
[[nodiscard]] inline index_t most_tile_blocks(const device_limits& limits, index_t tiles, index_t depth) {
  return std::max(index_t{1}, std::min<index_t>(limits.multiprocessors, tiles * depth / 4));
}

/// \brief Cuts tiles into ranges. Where it leaves few multiprocessors idle, every tile gets the same number
/// of blocks, so that none has parts of two tiles.
[[nodiscard]] inline work_split plan_tiles(const device_limits& limits, index_t tiles, index_t depth) {
  const index_t most = most_tile_blocks(limits, tiles, depth), even = most / tiles * tiles;
  return {static_cast<std::uint32_t>(tiles), static_cast<std::uint32_t>(depth),
          static_cast<std::uint32_t>(even * 20 >= most * 19 ? even : most)};
}

}  // namespace pesc::gpu::detail
