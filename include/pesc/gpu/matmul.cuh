// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "pesc/core/product_options.hpp"
#include "pesc/core/workspace.hpp"
#include "pesc/gpu/detail/matmul_kernels.cuh"
#include "pesc/gpu/launch.cuh"

namespace pesc::gpu {
namespace detail {

/// \brief Whether `width` floats at the start of every row can be read at once.
[[nodiscard]] inline bool rows_aligned(const float* data, index_t stride, int width) {
  return reinterpret_cast<std::uintptr_t>(data) % (static_cast<unsigned>(width) * sizeof(float)) == 0 &&
         stride % width == 0;
}

/// \brief The fields of a product that do not depend on groups and parts.
[[nodiscard]] inline product whole_product(matrix_view<const float, device_space> a,
                                           matrix_view<const float, device_space> b,
                                           matrix_view<float, device_space> y,
                                           const matmul_options& options) {
  product p;
  p.a = a.data;
  p.b = b.data;
  p.y = y.data;
  p.a_stride = a.stride;
  p.b_stride = b.stride;
  p.y_stride = y.stride;
  p.rows = y.rows;
  p.cols = y.cols;
  p.depth = options.transpose_a ? a.rows : a.cols;
  p.part_depth = p.depth;
  p.alpha = options.alpha;
  p.accumulate = options.accumulate;
  p.a_vectors = rows_aligned(a.data, a.stride, 4);
  p.b_vectors = rows_aligned(b.data, b.stride, 4);
  p.y_pairs = rows_aligned(y.data, y.stride, 2);
  return p;
}

/// \brief Launches `parts` blocks for every tile.
template <class Tile>
void launch_product(const context& ctx, product p, bool transpose_a, bool transpose_b, index_t row_tiles,
                    index_t parts) {
  const index_t col_tiles = ceil_div(p.cols, Tile::cols);
  launch_shape shape = grid_1d(row_tiles * col_tiles * parts * Tile::threads, Tile::threads);
  // The same for every order of the operands.
  shape.shared_bytes = product_steps<Tile, false, false>::bytes;
  p.row_tiles = static_cast<unsigned>(row_tiles);
  p.col_tiles = static_cast<unsigned>(col_tiles);
  const auto kernel =
      transpose_a ? (transpose_b ? product_kernel<Tile, true, true> : product_kernel<Tile, true, false>)
                  : (transpose_b ? product_kernel<Tile, false, true> : product_kernel<Tile, false, false>);
  launch(ctx, "product_kernel", kernel, shape, p);
}

using large_tile = product_tile<128, 128, 32, 2, 4>;
using medium_tile = product_tile<64, 64, 32, 2, 2>;
using flat_tile = product_tile<16, 128, 32, 1, 4>;
using tall_tile = product_tile<128, 16, 32, 4, 1>;

/// \brief Tiles that keep a large device busy.
inline constexpr index_t enough_tiles = 128;

/// \brief Calls `f` with the tile for a result of this size.
template <class F>
void with_product_tile(index_t rows, index_t cols, F&& f) {
  if (rows <= flat_tile::rows)
    f(flat_tile{});
  else if (cols <= tall_tile::cols)
    f(tall_tile{});
  else if (ceil_div(rows, large_tile::rows) * ceil_div(cols, large_tile::cols) >= enough_tiles)
    f(large_tile{});
  else
    f(medium_tile{});
}

inline constexpr index_t least_part_depth = 256;        ///< a block sums at least this much
inline constexpr index_t most_part_elements = 1 << 20;  ///< of the partial results of a product

/// \brief Floats of partial results that suffice for a product of this size and all smaller ones, so that
/// scratch for many rows suffices for fewer.
[[nodiscard]] inline index_t part_elements(index_t rows, index_t cols, index_t depth) {
  if (depth <= least_part_depth) return 0;
  return std::min(most_part_elements, rows * cols * ceil_div(depth, least_part_depth));
}

/// \brief Into how many parts the depth is cut: from the sizes alone, so that devices agree on the result.
[[nodiscard]] inline index_t part_count(index_t rows, index_t cols, index_t depth, index_t tiles) {
  if (tiles >= enough_tiles) return 1;
  return std::max(index_t{1}, std::min({ceil_div(depth, least_part_depth), ceil_div(2 * enough_tiles, tiles),
                                        most_part_elements / (rows * cols)}));
}

}  // namespace detail

/// \brief y (+)= alpha op(a) op(b).
///
/// Products and sums have the precision of float; they are formed on tensor cores (detail/tf32.cuh). An
/// element of a or b that is not finite makes the results that it takes part in NaN. Long sums are cut into
/// parts, which are added in their order: results are the same in every run.
template <class Lazy = void>
void matmul(context& ctx, matrix_view<const float, device_space> a, matrix_view<const float, device_space> b,
            matrix_view<float, device_space> y, const matmul_options& options, workspace<device_space>& ws) {
  const workspace<device_space>::scope scope(ws);
  detail::product p = detail::whole_product(a, b, y, options);
  PESC_ASSERT(p.rows == (options.transpose_a ? a.cols : a.rows));
  PESC_ASSERT(p.cols == (options.transpose_b ? b.rows : b.cols));
  PESC_ASSERT(p.depth == (options.transpose_b ? b.cols : b.rows));
  float* const partial = ws.take<float>(detail::part_elements(p.rows, p.cols, p.depth)).data;
  if (ws.counting() || y.empty()) return;
  detail::with_product_tile(p.rows, p.cols, [&](auto kind) {
    using tile = decltype(kind);
    const index_t row_tiles = ceil_div(p.rows, tile::rows);
    index_t parts = detail::part_count(p.rows, p.cols, p.depth, row_tiles * ceil_div(p.cols, tile::cols));
    p.part_depth = round_up(ceil_div(p.depth, parts), tile::depth);
    parts = p.part_depth == 0 ? 1 : ceil_div(p.depth, p.part_depth);
    if (parts > 1) {
      p.y = partial;
      p.y_stride = p.cols;
      p.y_step = p.rows * p.cols;
      p.y_pairs = p.cols % 2 == 0;
      p.alpha = 1.0f;
      p.accumulate = false;
    }
    detail::launch_product<tile>(ctx, p, options.transpose_a, options.transpose_b, row_tiles, parts);
    if (parts > 1)
      launch(ctx, "add_parts_kernel", detail::add_parts_kernel<256>, grid_1d(y.size(), 256), partial,
             static_cast<int>(parts), options.alpha, options.accumulate, y);
  });
}

/// \brief For each group g: y[rows of g] (+)= alpha a[rows of g] op(b[g]). Precision as of `matmul`.
///
/// \param offsets  first row of each group and the end of the last, ascending; rows beyond stay as they are
template <class Lazy = void>
void grouped_matmul(context& ctx, vector_view<const std::int32_t, device_space> offsets,
                    matrix_view<const float, device_space> a, batch_view<const float, device_space> b,
                    matrix_view<float, device_space> y, const matmul_options& options,
                    workspace<device_space>& ws) {
  PESC_ASSERT(!options.transpose_a && offsets.size == b.count + 1);
  if (ws.counting() || y.empty()) return;
  detail::product p = detail::whole_product(a, {b.data, b.rows, b.cols}, y, options);
  PESC_ASSERT(p.cols == (options.transpose_b ? b.rows : b.cols));
  PESC_ASSERT(p.depth == (options.transpose_b ? b.cols : b.rows) && a.rows == y.rows);
  p.kind = detail::grouping::rows;
  p.offsets = offsets.data;
  p.groups = static_cast<int>(b.count);
  p.b_step = b.rows * b.cols;
  // Every group may end with a tile that is not full.
  const auto launch_with = [&](auto kind) {
    using tile = decltype(kind);
    detail::launch_product<tile>(ctx, p, false, options.transpose_b,
                                 std::min(y.rows, ceil_div(y.rows, tile::rows) + b.count), 1);
  };
  if (y.rows <= detail::flat_tile::rows * b.count)
    launch_with(detail::flat_tile{});
  else
    launch_with(detail::medium_tile{});
}

/// \brief For each group g: y[g] += alpha a[rows of g]ᵀ b[rows of g]. Precision as of `matmul`.
template <class Lazy = void>
void grouped_outer(context& ctx, vector_view<const std::int32_t, device_space> offsets,
                   matrix_view<const float, device_space> a, matrix_view<const float, device_space> b,
                   batch_view<float, device_space> y, float alpha, workspace<device_space>& ws) {
  PESC_ASSERT(offsets.size == y.count + 1 && y.rows == a.cols && y.cols == b.cols && a.rows == b.rows);
  if (ws.counting() || y.size() == 0) return;
  detail::product p = detail::whole_product(a, b, {y.data, y.rows, y.cols},
                                            {.alpha = alpha, .transpose_a = true, .accumulate = true});
  p.kind = detail::grouping::depth;
  p.offsets = offsets.data;
  p.groups = static_cast<int>(y.count);
  p.y_step = y.rows * y.cols;
  using tile = detail::medium_tile;
  detail::launch_product<tile>(ctx, p, true, false, ceil_div(y.rows, tile::rows), y.count);
}

}  // namespace pesc::gpu
