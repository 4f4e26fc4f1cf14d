// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/core/product_options.hpp"
#include "pesc/core/views.hpp"
#include "pesc/core/workspace.hpp"
#include "pesc/cpu/context.hpp"
#include "pesc/cpu/detail/kernels.hpp"

namespace pesc::cpu {
inline namespace PESC_CPU_ABI {

namespace detail {

inline dense_tile whole_product(matrix_view<const float> a, bool transpose_a, matrix_view<const float> b,
                                bool transpose_b, matrix_view<float> y, float alpha, bool accumulate) {
  const index_t k = transpose_a ? a.rows : a.cols;
  PESC_ASSERT(y.rows == (transpose_a ? a.cols : a.rows));
  PESC_ASSERT(y.cols == (transpose_b ? b.rows : b.cols));
  PESC_ASSERT(k == (transpose_b ? b.cols : b.rows));
  return {a.data,   a.stride, transpose_a, b.data, b.stride, transpose_b, y.data,
          y.stride, y.rows,   y.cols,      k,      alpha,    accumulate};
}

}  // namespace detail

/// \brief y (+)= alpha op(a) op(b).
template <Executor E, IsaPolicy I>
void matmul(context<E, I>& ctx, matrix_view<const float> a, matrix_view<const float> b, matrix_view<float> y,
            const matmul_options& options, workspace<>& ws) {
  const workspace<>::scope scope(ws);
  detail::with_kernels(ctx.isa_policy(), [&](auto kernels) {
    using kernel = decltype(kernels);
    float* scratch = ws.take<float>(kernel::dense_scratch * ctx.executor().concurrency()).data;
    if (ws.counting() || y.empty()) return;
    const detail::dense_tile whole = detail::whole_product(a, options.transpose_a, b, options.transpose_b, y,
                                                           options.alpha, options.accumulate);
    const detail::tile_grid grid(y.rows, y.cols, kernel::dense_rows, kernel::dense_cols);
    ctx.executor().parallel_for(grid.count(), 1, [&](index_t begin, index_t end, int worker) {
      for (index_t i = begin; i < end; ++i)
        kernel::multiply_dense(grid.tile(whole, i), scratch + worker * kernel::dense_scratch);
    });
  });
}

/// \brief For each group g: y[rows of g] (+)= alpha a[rows of g] op(b[g]).
///
/// \param offsets  first row of each group and the end of the last, ascending; not read when `ws` only counts
template <Executor E, IsaPolicy I>
void grouped_matmul(context<E, I>& ctx, vector_view<const std::int32_t> offsets, matrix_view<const float> a,
                    batch_view<const float> b, matrix_view<float> y, const matmul_options& options,
                    workspace<>& ws) {
  PESC_ASSERT(!options.transpose_a);
  const workspace<>::scope scope(ws);
  detail::with_kernels(ctx.isa_policy(), [&](auto kernels) {
    using kernel = decltype(kernels);
    float* scratch = ws.take<float>(kernel::dense_scratch * ctx.executor().concurrency()).data;
    if (ws.counting() || y.empty()) return;
    PESC_ASSERT(offsets.size == b.count + 1 && offsets[b.count] <= y.rows);
    const index_t chunks = detail::tile_grid(y.rows, y.cols, kernel::dense_rows, kernel::dense_cols).count();
    // A chunk takes every `chunks`-th tile of its group, so that the loop needs no list of tiles.
    ctx.executor().parallel_for(b.count * chunks, 1, [&](index_t begin, index_t end, int worker) {
      for (index_t i = begin; i < end; ++i) {
        const index_t g = i / chunks;
        const index_t rows = offsets[g + 1] - offsets[g];
        if (rows == 0) continue;
        const detail::tile_grid grid(rows, y.cols, kernel::dense_rows, kernel::dense_cols);
        const detail::dense_tile whole =
            detail::whole_product(a.row_range(offsets[g], rows), false, b[g], options.transpose_b,
                                  y.row_range(offsets[g], rows), options.alpha, options.accumulate);
        for (index_t tile = i % chunks; tile < grid.count(); tile += chunks)
          kernel::multiply_dense(grid.tile(whole, tile), scratch + worker * kernel::dense_scratch);
      }
    });
  });
}

/// \brief For each group g: y[g] += alpha a[rows of g]^T b[rows of g].
template <Executor E, IsaPolicy I>
void grouped_outer(context<E, I>& ctx, vector_view<const std::int32_t> offsets, matrix_view<const float> a,
                   matrix_view<const float> b, batch_view<float> y, float alpha, workspace<>& ws) {
  const workspace<>::scope scope(ws);
  detail::with_kernels(ctx.isa_policy(), [&](auto kernels) {
    using kernel = decltype(kernels);
    float* scratch = ws.take<float>(kernel::dense_scratch * ctx.executor().concurrency()).data;
    if (ws.counting() || y.size() == 0) return;
    PESC_ASSERT(offsets.size == y.count + 1 && y.rows == a.cols && y.cols == b.cols);
    const detail::tile_grid grid(y.rows, y.cols, kernel::dense_rows, kernel::dense_cols);
    ctx.executor().parallel_for(y.count * grid.count(), 1, [&](index_t begin, index_t end, int worker) {
      for (index_t i = begin; i < end; ++i) {
        const index_t g = i / grid.count();
        const index_t rows = offsets[g + 1] - offsets[g];
        if (rows == 0) continue;
        const detail::dense_tile whole = detail::whole_product(
            a.row_range(offsets[g], rows), true, b.row_range(offsets[g], rows), false, y[g], alpha, true);
        kernel::multiply_dense(grid.tile(whole, i % grid.count()), scratch + worker * kernel::dense_scratch);
      }
    });
  });
}

PESC_CPU_INSTANCE(void matmul(context<>&, matrix_view<const float>, matrix_view<const float>,
                              matrix_view<float>, const matmul_options&, workspace<>&))
PESC_CPU_INSTANCE(void grouped_matmul(context<>&, vector_view<const std::int32_t>, matrix_view<const float>,
                                      batch_view<const float>, matrix_view<float>, const matmul_options&,
                                      workspace<>&))
PESC_CPU_INSTANCE(void grouped_outer(context<>&, vector_view<const std::int32_t>, matrix_view<const float>,
                                     matrix_view<const float>, batch_view<float>, float, workspace<>&))

}  // namespace PESC_CPU_ABI
}  // namespace pesc::cpu
