// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/core/views.hpp"
#include "pesc/gpu/detail/tf32.cuh"
#include "pesc/gpu/detail/warp.cuh"

// Dense products. A block of threads forms one tile of the result: steps along the summed dimension are
// copied to shared memory in the order they have in global memory, the next step while this one is
// multiplied, and read from there as fragments of the tensor cores.

namespace pesc::gpu::detail {

/// \brief What the groups of a product have of their own.
enum class grouping : std::uint8_t {
  none,
  rows,  ///< a range of the rows of a and y, and a matrix of b
  depth  ///< a range of the summed rows of a and b, and a matrix of y
};

/// \brief y (+)= alpha op(a) op(b), whole, in parts along the depth, or for every group.
struct product {
  const float* a = nullptr;
  const float* b = nullptr;
  float* y = nullptr;
  index_t a_stride = 0, b_stride = 0, y_stride = 0;  ///< between rows in memory
  index_t b_step = 0, y_step = 0;                    ///< between matrices of a stack, or between parts
  index_t rows = 0, cols = 0, depth = 0;
  index_t part_depth = 0;                 ///< `grouping::none`: what one block sums
  unsigned row_tiles = 0, col_tiles = 0;  ///< blocks are numbered by row tile, column tile, part or group
  const std::int32_t* offsets = nullptr;  ///< [groups + 1]
  int groups = 0;
  grouping kind = grouping::none;
  bool a_vectors = false, b_vectors = false;  ///< whether rows of 16-byte vectors are aligned
  bool y_pairs = false;                       ///< the same for 8-byte pairs
  bool accumulate = false;
  float alpha = 1.0f;
};

/// \brief Sizes of the tile of a block and how its warps share it.
template <int Rows, int Cols, int Depth, int RowWarps, int ColWarps>
struct product_tile {
  static constexpr int rows = Rows, cols = Cols, depth = Depth;
  static constexpr int col_warps = ColWarps;
  static constexpr int threads = 32 * RowWarps * ColWarps;
  /// \brief Blocks that a multiprocessor shall hold at least; bounds the registers of a thread.
  static constexpr int resident = threads == 128 ? 3 : 1;
  static constexpr int warp_rows = Rows / RowWarps, warp_cols = Cols / ColWarps;
  static constexpr int row_fragments = warp_rows / 16, col_fragments = warp_cols / 8;
  static_assert(warp_rows % 16 == 0 && warp_cols % 8 == 0 && Depth % 8 == 0);
};

/// \brief One step of an operand in shared memory. `Transposed`: rows of memory run across the depth.
///
/// A fragment reads eight neighbours of the extent times four of the depth at once. So that these meet all 32
/// banks, and 16-byte copies do too, chunks of a line change places by the number of the line.
template <int Extent, int Depth, bool Transposed, int Threads>
struct operand_step {
  static constexpr int lines = Transposed ? Depth : Extent;
  static constexpr int length = Transposed ? Extent : Depth;
  static constexpr int chunk = Transposed ? 8 : 4;
  static constexpr int lines_in_banks = length < 32 ? 32 / length : 1;
  static constexpr int chunks_in_banks = (length < 32 ? length : 32) / chunk;
  static constexpr int floats = lines * length;
  static_assert(Extent % 16 == 0 && Depth % 8 == 0 && (length == 16 || length % 32 == 0));

  /// \brief What columns of a line are exclusively or'ed with; repeats after 8 lines (4 where transposed).
  __device__ static int turn(int line) {
    const auto number = static_cast<unsigned>(line);
    return static_cast<int>(number / lines_in_banks % chunks_in_banks * chunk);
  }

  /// \brief Place of element (i + g, k + q) for i a multiple of 8 and k of 4.
  __device__ static int place(int i, int g, int k, int q) {
    return Transposed ? (k + q) * length + (i ^ turn(q)) + g : (i + g) * length + (k ^ turn(g)) + q;
  }

  /// \brief Starts the copy of (`first`, `k`) and what follows; zeros stand beyond `end` and `k_end`.
  __device__ static void copy(float* step, const float* data, index_t stride, bool vectors, index_t first,
                              index_t end, index_t k, index_t k_end) {
    const index_t line = Transposed ? k : first, column = Transposed ? first : k;
    const int lines_left = static_cast<int>(min((Transposed ? k_end : end) - line, index_t{lines}));
    const int columns_left = static_cast<int>(min((Transposed ? end : k_end) - column, index_t{length}));
    const float* origin = data + line * stride + column;
    if (vectors)
      copy_lines<4>(step, origin, stride, lines_left, columns_left);
    else
      copy_lines<1>(step, origin, stride, lines_left, columns_left);
  }

 private:
  /// \brief Threads take `Width` floats each, neighbours in a line, then the same columns further down.
  template <int Width>
  __device__ static void copy_lines(float* step, const float* origin, index_t stride, int lines_left,
                                    int columns_left) {
    constexpr int per_line = length / Width, lines_apart = Threads / per_line;
    static_assert(Threads % per_line == 0 && lines % lines_apart == 0);
    const int line = static_cast<int>(threadIdx.x) / per_line;
    const int column = static_cast<int>(threadIdx.x) % per_line * Width;
    const int bytes = 4 * max(0, min(Width, columns_left - column));
    const float* from = origin + line * stride + column;
    // More of the narrow copies at once would only cost registers for their addresses.
#pragma unroll(Width == 1 ? 1 : 16)
    for (int down = 0; down < lines; down += lines_apart, from += lines_apart * stride) {
      const int place = (line + down) * length + (column ^ turn(line + down));
      const auto to = static_cast<std::uint32_t>(__cvta_generic_to_shared(step + place));
      asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(to), "l"(from), "n"(4 * Width),
                   "r"(line + down < lines_left ? bytes : 0)
                   : "memory");
    }
  }
};

/// \brief Both operands in shared memory, twice: one step is copied while the other is multiplied.
template <class Tile, bool TransposedA, bool TransposedB>
struct product_steps {
  // Rows of an op(a) that is not transposed run along the depth, those of op(b) across it.
  using a = operand_step<Tile::rows, Tile::depth, TransposedA, Tile::threads>;
  using b = operand_step<Tile::cols, Tile::depth, !TransposedB, Tile::threads>;
  static constexpr index_t bytes = 2 * (a::floats + b::floats) * index_t{sizeof(float)};
};

/// \brief Place of a block in its product.
struct product_block {
  index_t row = 0, row_end = 0;
  index_t col = 0;
  index_t k = 0, k_end = 0;
  const float* b = nullptr;
  float* y = nullptr;
};

/// \brief Finds the group of the `tile`-th tile of rows, by whole warps; beyond the last the place is empty.
template <int TileRows>
__device__ void find_row_group(const product& p, unsigned tile, product_block& block) {
  auto left = static_cast<int>(tile);
  for (int first = 0; first < p.groups; first += 32) {
    const int g = first + lane_of_warp();
    const int begin = g < p.groups ? p.offsets[g] : 0;
    const int end = g < p.groups ? p.offsets[g + 1] : 0;
    const int tiles = (end - begin + TileRows - 1) / TileRows;
    const int up_to = inclusive_sum(tiles);
    const unsigned reached = __ballot_sync(whole_warp, up_to > left);
    if (reached != 0) {
      const int owner = __ffs(static_cast<int>(reached)) - 1;
      const int within = left - __shfl_sync(whole_warp, up_to - tiles, owner);
      block.row = __shfl_sync(whole_warp, begin, owner) + index_t{within} * TileRows;
      block.row_end = __shfl_sync(whole_warp, end, owner);
      block.b = p.b + (first + owner) * p.b_step;
      return;
    }
    left -= __shfl_sync(whole_warp, up_to, 31);
  }
}

template <class Tile>
__device__ product_block find_block(const product& p) {
  const unsigned row_tile = blockIdx.x % p.row_tiles;
  const unsigned col_tile = blockIdx.x / p.row_tiles % p.col_tiles;
  const unsigned part = blockIdx.x / p.row_tiles / p.col_tiles;
  product_block block;
  block.col = index_t{col_tile} * Tile::cols;
  block.y = p.y + part * p.y_step;
  if (p.kind == grouping::rows) {
    block.k_end = p.depth;
    find_row_group<Tile::rows>(p, row_tile, block);
    return block;
  }
  block.row = index_t{row_tile} * Tile::rows;
  block.row_end = p.rows;
  block.b = p.b;
  block.k = p.kind == grouping::depth ? p.offsets[part] : part * p.part_depth;
  block.k_end = p.kind == grouping::depth ? p.offsets[part + 1] : min(p.depth, block.k + p.part_depth);
  return block;
}

/// \brief sums += the tile's product over one step in shared memory.
template <class Tile, class A, class B>
__device__ void multiply_step(const float* a, const float* b, int warp_row, int warp_col,
                              float (&sums)[Tile::row_fragments][Tile::col_fragments][4]) {
  const int g = lane_of_warp() / 4, q = lane_of_warp() % 4;
  // Tensor cores cut off the sums that they add to instead of rounding them, which would bias long sums. So
  // they add up one step only; steps are added here, rounded: Ootomo and Yokota, "Recovering single precision
  // accuracy from tensor cores while surpassing the FP32 theoretical peak performance" (2022).
  float step[Tile::row_fragments][Tile::col_fragments][4] = {};
#pragma unroll
  for (int k = 0; k < Tile::depth; k += 8) {
    tf32_fragment<4> left[Tile::row_fragments];
    tf32_fragment<2> right[Tile::col_fragments];
#pragma unroll
    for (int i = 0; i < Tile::row_fragments; ++i)
#pragma unroll
      for (int r = 0; r < 4; ++r)
        left[i].set(r, a[A::place(warp_row + 16 * i + r % 2 * 8, g, k + r / 2 * 4, q)]);
#pragma unroll
    for (int j = 0; j < Tile::col_fragments; ++j)
#pragma unroll
      for (int r = 0; r < 2; ++r) right[j].set(r, b[B::place(warp_col + 8 * j, g, k + 4 * r, q)]);
#pragma unroll
    for (int term = 0; term < 3; ++term)
#pragma unroll
      for (int i = 0; i < Tile::row_fragments; ++i)
#pragma unroll
        for (int j = 0; j < Tile::col_fragments; ++j)
          mma_tf32(step[i][j], term == 0 ? left[i].low : left[i].high,
                   term == 1 ? right[j].low : right[j].high);
  }
#pragma unroll
  for (int i = 0; i < Tile::row_fragments; ++i)
#pragma unroll
    for (int j = 0; j < Tile::col_fragments; ++j)
#pragma unroll
      for (int r = 0; r < 4; ++r) sums[i][j][r] += step[i][j][r];
}

/// \brief Two neighbouring elements of a row of y, of which `valid` exist.
__device__ inline void store_pair(const product& p, float* y, float first, float second, index_t valid) {
  first *= p.alpha;
  second *= p.alpha;
  if (p.y_pairs && valid >= 2) {
    auto* pair = reinterpret_cast<float2*>(y);
    const float2 old = p.accumulate ? *pair : float2{0.0f, 0.0f};
    *pair = {old.x + first, old.y + second};
    return;
  }
  if (valid >= 1) y[0] = p.accumulate ? y[0] + first : first;
  if (valid >= 2) y[1] = p.accumulate ? y[1] + second : second;
}

/// \brief One block forms one tile of the result, or of one part of its depth.
template <class Tile, bool TransposedA, bool TransposedB>
__global__ void __launch_bounds__(Tile::threads, Tile::resident) product_kernel(product p) {
  using steps = product_steps<Tile, TransposedA, TransposedB>;
  using a_step = typename steps::a;
  using b_step = typename steps::b;
  extern __shared__ float4 product_memory[];
  float* const a = reinterpret_cast<float*>(product_memory);
  float* const b = a + 2 * a_step::floats;

  const product_block block = find_block<Tile>(p);
  if (block.row >= block.row_end || (p.kind == grouping::depth && block.k >= block.k_end)) return;
  const auto copy = [&](int buffer, index_t k) {
    a_step::copy(a + buffer * a_step::floats, p.a, p.a_stride, p.a_vectors, block.row, block.row_end, k,
                 block.k_end);
    b_step::copy(b + buffer * b_step::floats, block.b, p.b_stride, p.b_vectors, block.col, p.cols, k,
                 block.k_end);
  };
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int warp_row = warp / Tile::col_warps * Tile::warp_rows,
            warp_col = warp % Tile::col_warps * Tile::warp_cols;
  float sums[Tile::row_fragments][Tile::col_fragments][4] = {};
  int buffer = 0;
  if (block.k < block.k_end) copy(0, block.k);
  for (index_t k = block.k; k < block.k_end; k += Tile::depth, buffer ^= 1) {
    asm volatile("cp.async.wait_all;" ::: "memory");
    __syncthreads();  // this step has arrived, and nobody reads the other buffer any more
    if (k + Tile::depth < block.k_end) copy(buffer ^ 1, k + Tile::depth);
    multiply_step<Tile, a_step, b_step>(a + buffer * a_step::floats, b + buffer * b_step::floats, warp_row,
                                        warp_col, sums);
  }

  const int g = lane_of_warp() / 4, q = lane_of_warp() % 4;
#pragma unroll
  for (int i = 0; i < Tile::row_fragments; ++i)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const index_t row = block.row + warp_row + 16 * i + 8 * half + g;
      if (row >= block.row_end) continue;
#pragma unroll
      for (int j = 0; j < Tile::col_fragments; ++j) {
        const index_t col = block.col + warp_col + 8 * j + 2 * q;
        store_pair(p, block.y + row * p.y_stride + col, sums[i][j][2 * half], sums[i][j][2 * half + 1],
                   p.cols - col);
      }
    }
}

/// \brief y (+)= alpha times the sum of the parts, in their order; one thread per element.
template <int Threads>
__global__ void __launch_bounds__(Threads)
    add_parts_kernel(const float* parts, int count, float alpha, bool accumulate,
                     matrix_view<float, device_space> y) {
  const index_t i = blockIdx.x * index_t{Threads} + threadIdx.x;
  if (i >= y.size()) return;
  float sum = 0.0f;
  for (int part = 0; part < count; ++part) sum += parts[part * y.size() + i];
  float& to = y(i / y.cols, i % y.cols);
  to = accumulate ? to + alpha * sum : alpha * sum;
}

}  // namespace pesc::gpu::detail
