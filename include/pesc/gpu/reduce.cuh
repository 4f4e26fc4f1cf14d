// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/core/workspace.hpp"
#include "pesc/gpu/detail/reduce_kernels.cuh"
#include "pesc/gpu/elementwise.cuh"

// No operation here uses atomics: parts are fixed by sizes alone and meet in a fixed order, so that results do not
// depend on the schedule of blocks.

namespace pesc::gpu {
namespace detail {

/// \brief Calls `body` with a constant: the number of threads that suits rows of `cols` elements.
template <class Body>
void with_team(index_t cols, const Body& body) {
  if (cols <= 32)
    body(std::integral_constant<int, 8>{});
  else if (cols <= 1024)
    body(std::integral_constant<int, 32>{});
  else
    body(std::integral_constant<int, team_block>{});
}

/// \brief Launch of a kernel with a team of `threads` for each row.
[[nodiscard]] inline launch_shape team_shape(index_t rows, int threads) {
  return grid_1d(rows * threads, team_block);
}

}  // namespace detail

/// \brief y[j] += sum of column j; sums are in double.
template <class Lazy = void>
void column_sum(context& ctx, matrix_view<const float, device_space> x, vector_view<float, device_space> y) {
  PESC_ASSERT(x.cols == y.size);
  if (x.empty()) return;
  constexpr int threads = 1024;
  unsigned columns = 1;
  while (columns < 32 && columns < x.cols) columns *= 2;
  launch_shape shape = grid_1d(x.cols, static_cast<int>(columns));
  shape.block.y = threads / columns;
  launch(ctx, "column_sum_kernel", detail::column_sum_kernel<threads>, shape, x, y);
}

/// \brief out[0] = sum of squares, in double.
template <class Lazy = void>
void squared_norm(context& ctx, vector_view<const float, device_space> x,
                  vector_view<double, device_space> out, workspace<device_space>& ws) {
  const workspace<device_space>::scope scope(ws);
  const index_t part = round_up(std::max<index_t>(4096, ceil_div(x.size, detail::reduction_parts)), 4);
  const index_t count = ceil_div(x.size, part);
  double* parts = ws.take<double>(count).data;
  if (ws.counting()) return;
  PESC_ASSERT(out.size == 1);
  constexpr int threads = detail::team_block;
  // The end of the list need not fill a pack.
  detail::with_width<4>(
      [&](auto width) {
        launch(ctx, "squared_norm_kernel", detail::squared_norm_kernel<width()>,
               grid_1d(count * threads, threads), x, part, parts);
      },
      x.part(0, x.size / 4 * 4));
  launch(ctx, "sum_parts_kernel", detail::sum_parts_kernel<threads>, grid_1d(threads, threads), parts, count,
         out.data);
}

namespace detail {

/// \brief As `all_finite`, of rows of which the last has `last` columns.
template <class Lazy = void>
void check_finite(context& ctx, device_matrix<const float> x, index_t last, device_vector<std::int32_t> out,
                  workspace<device_space>& ws) {
  const workspace<device_space>::scope scope(ws);
  const index_t count = std::min(x.rows, reduction_parts);
  std::int32_t* parts = ws.take<std::int32_t>(count).data;
  if (ws.counting()) return;
  PESC_ASSERT(out.size == 1);
  launch(ctx, "all_finite_kernel", all_finite_kernel<team_block>, grid_1d(count * team_block, team_block), x,
         last, parts);
  launch(ctx, "all_parts_kernel", all_parts_kernel<team_block>, grid_1d(team_block, team_block), parts, count,
         out.data);
}

}  // namespace detail

/// \brief out[0] = 1 where no element is NaN or infinite, else 0.
template <class Lazy = void>
void all_finite(context& ctx, vector_view<const float, device_space> x,
                vector_view<std::int32_t, device_space> out, workspace<device_space>& ws) {
  // Cut to rows only so that blocks can share the work.
  constexpr index_t width = 4096;
  const index_t rows = ceil_div(x.size, width);
  const index_t last = x.size - (rows - 1) * width;
  detail::check_finite(ctx, {x.data, rows, width}, last, out, ws);
}

template <class Lazy = void>
void all_finite(context& ctx, matrix_view<const float, device_space> x,
                vector_view<std::int32_t, device_space> out, workspace<device_space>& ws) {
  if (x.stride == x.cols)
    all_finite(ctx, vector_view<const float, device_space>(x.data, x.size()), out, ws);
  else
    detail::check_finite(ctx, x, x.cols, out, ws);
}

/// \brief y[i] = <a_i, b_i>.
template <class Lazy = void>
void row_dot(context& ctx, matrix_view<const float, device_space> a, matrix_view<const float, device_space> b,
             vector_view<float, device_space> y) {
  PESC_ASSERT(a.rows == b.rows && a.cols == b.cols && y.size >= a.rows);
  detail::with_team(a.cols, [&](auto threads) {
    detail::with_width<4>(
        [&](auto width) {
          launch(ctx, "row_dot_kernel", detail::row_dot_kernel<threads(), width()>,
                 detail::team_shape(a.rows, threads), a, b, y);
        },
        a, b);
  });
}

/// \brief Softmax of every row; NaN counts as -infinity, a row of -infinity becomes uniform; `y` may be `x`.
template <class Lazy = void>
void softmax_rows(context& ctx, matrix_view<const float, device_space> x,
                  matrix_view<float, device_space> y) {
  PESC_ASSERT(x.rows == y.rows && x.cols == y.cols);
  detail::with_team(x.cols, [&](auto threads) {
    detail::with_width<4>(
        [&](auto width) {
          launch(ctx, "softmax_rows_kernel", detail::softmax_rows_kernel<threads(), width()>,
                 detail::team_shape(x.rows, threads), x, y);
        },
        x, y);
  });
}

}  // namespace pesc::gpu
