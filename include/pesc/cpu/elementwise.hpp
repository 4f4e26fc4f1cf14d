// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "pesc/core/random.hpp"
#include "pesc/core/views.hpp"
#include "pesc/cpu/context.hpp"
#include "pesc/cpu/detail/elementwise.hpp"
#include "pesc/nn/activation.hpp"

namespace pesc::cpu {
inline namespace PESC_CPU_ABI {
namespace detail {

/// \brief Rows of `cols` elements that one chunk of a loop should take; depends on sizes alone.
inline index_t row_grain(index_t cols, index_t elements = 16384) {
  return std::max<index_t>(1, elements / std::max<index_t>(1, cols));
}

/// \brief Calls `row(i)` for every row index, in parallel.
template <Executor E, IsaPolicy I, class Row>
void for_rows(context<E, I>& ctx, index_t rows, index_t cols, Row row) {
  if (rows <= 0) return;
  ctx.executor().parallel_for(rows, row_grain(cols), [&](index_t begin, index_t end, int) {
    for (index_t i = begin; i < end; ++i) row(i);
  });
}

/// \brief Calls `row(kernels, i)` for every row index, in parallel, with the kernels of the instruction set.
template <Executor E, IsaPolicy I, class Row>
void for_rows_with_kernels(context<E, I>& ctx, index_t rows, index_t cols, Row row) {
  with_elementwise(ctx.isa_policy(),
                   [&](auto kernels) { for_rows(ctx, rows, cols, [&](index_t i) { row(kernels, i); }); });
}

}  // namespace detail

/// \brief y = v everywhere.
template <Executor E, IsaPolicy I>
void fill(context<E, I>& ctx, matrix_view<float> y, float v) {
  detail::for_rows(ctx, y.rows, y.cols, [&](index_t i) { std::fill_n(y.row(i), y.cols, v); });
}

template <Executor E, IsaPolicy I>
void fill(context<E, I>& ctx, vector_view<float> y, float v) {
  ctx.executor().parallel_for(
      y.size, 65536, [&](index_t begin, index_t end, int) { std::fill(y.data + begin, y.data + end, v); });
}

/// \brief y = x, converted to the element type of `y` (nearest, ties to even).
template <Executor E, IsaPolicy I, Scalar S, Scalar T>
void copy(context<E, I>& ctx, matrix_view<const S> x, matrix_view<T> y) {
  PESC_ASSERT(x.rows == y.rows && x.cols == y.cols);
  if constexpr (std::is_same_v<S, T>) {
    detail::for_rows(ctx, x.rows, x.cols, [&](index_t i) { std::copy_n(x.row(i), x.cols, y.row(i)); });
  } else {
    detail::for_rows_with_kernels(ctx, x.rows, x.cols, [&](auto kernels, index_t i) {
      decltype(kernels)::convert(x.row(i), y.row(i), x.cols);
    });
  }
}

template <Executor E, IsaPolicy I, Scalar S, Scalar T>
void copy(context<E, I>& ctx, matrix_view<S> x, matrix_view<T> y) requires(!std::is_const_v<S>) {
  copy(ctx, as_const(x), y);
}

/// \brief y = act(x).
template <Executor E, IsaPolicy I, Activation A>
void activate(context<E, I>& ctx, A, matrix_view<const float> x, matrix_view<float> y) {
  PESC_ASSERT(x.rows == y.rows && x.cols == y.cols);
  detail::for_rows_with_kernels(ctx, x.rows, 4 * x.cols, [&](auto kernels, index_t i) {
    decltype(kernels)::template activate<A>(x.row(i), y.row(i), x.cols);
  });
}

/// \brief dx = dy * act'(x); `dx` may be `dy` or `x`.
template <Executor E, IsaPolicy I, Activation A>
void activate_backward(context<E, I>& ctx, A, matrix_view<const float> x, matrix_view<const float> dy,
                       matrix_view<float> dx) {
  PESC_ASSERT(x.rows == dx.rows && x.cols == dx.cols && dy.rows == dx.rows && dy.cols == dx.cols);
  detail::for_rows_with_kernels(ctx, x.rows, 4 * x.cols, [&](auto kernels, index_t i) {
    decltype(kernels)::template activate_backward<A>(x.row(i), dy.row(i), dx.row(i), x.cols);
  });
}

/// \brief out = act(gate) * up.
template <Executor E, IsaPolicy I, Activation A>
void gated_activate(context<E, I>& ctx, A, matrix_view<const float> gate, matrix_view<const float> up,
                    matrix_view<float> out) {
  PESC_ASSERT(gate.rows == out.rows && gate.cols == out.cols && up.rows == out.rows && up.cols == out.cols);
  detail::for_rows_with_kernels(ctx, gate.rows, 4 * gate.cols, [&](auto kernels, index_t i) {
    decltype(kernels)::template gated_activate<A>(gate.row(i), up.row(i), out.row(i), gate.cols);
  });
}

/// \brief dgate = dout * up * act'(gate), dup = dout * act(gate).
///
/// `dgate` and `dup` may be any of the inputs, but not each other.
template <Executor E, IsaPolicy I, Activation A>
void gated_activate_backward(context<E, I>& ctx, A, matrix_view<const float> gate,
                             matrix_view<const float> up, matrix_view<const float> dout,
                             matrix_view<float> dgate, matrix_view<float> dup) {
  PESC_ASSERT(gate.rows == dout.rows && gate.cols == dout.cols && up.rows == dout.rows &&
              up.cols == dout.cols);
  detail::for_rows_with_kernels(ctx, gate.rows, 4 * gate.cols, [&](auto kernels, index_t i) {
    decltype(kernels)::template gated_backward<A>(gate.row(i), up.row(i), dout.row(i), dgate.row(i),
                                                  dup.row(i), gate.cols);
  });
}

/// \brief y += alpha * x.
template <Executor E, IsaPolicy I>
void add_scaled(context<E, I>& ctx, matrix_view<const float> x, float alpha, matrix_view<float> y) {
  PESC_ASSERT(x.rows == y.rows && x.cols == y.cols);
  detail::for_rows_with_kernels(ctx, x.rows, x.cols, [&](auto kernels, index_t i) {
    decltype(kernels)::add_scaled(x.row(i), alpha, y.row(i), x.cols);
  });
}

/// \brief Adds `bias` to every row of `y`.
template <Executor E, IsaPolicy I>
void add_bias(context<E, I>& ctx, vector_view<const float> bias, matrix_view<float> y) {
  PESC_ASSERT(bias.size == y.cols);
  detail::for_rows_with_kernels(ctx, y.rows, y.cols, [&](auto kernels, index_t i) {
    decltype(kernels)::add_scaled(bias.data, 1.0f, y.row(i), y.cols);
  });
}

namespace detail {

/// \brief One row of dropout; a block of four columns shares one draw.
inline void dropout_row(const float* x, index_t cols, float p, const random_stream& s, std::uint32_t mask_row,
                        float* y) {
  const float keep = 1.0f / (1.0f - p);
  for (index_t j = 0; j < cols; j += 4) {
    const auto words = s.words(mask_row, static_cast<std::uint32_t>(j / 4));
    const index_t count = std::min<index_t>(4, cols - j);
    for (index_t c = 0; c < count; ++c)
      y[j + c] = to_unit(words[static_cast<std::size_t>(c)]) >= p ? x[j + c] * keep : 0.0f;
  }
}

}  // namespace detail

/// \brief y = x / (1 - p) where s.uniform(row, column) >= p, else 0; `y` may be `x`, 0 <= p < 1.
template <Executor E, IsaPolicy I>
void dropout(context<E, I>& ctx, matrix_view<const float> x, float p, const random_stream& s,
             matrix_view<float> y) {
  PESC_ASSERT(x.rows == y.rows && x.cols == y.cols && p >= 0.0f && p < 1.0f);
  detail::for_rows(ctx, x.rows, 8 * x.cols, [&](index_t i) {
    detail::dropout_row(x.row(i), x.cols, p, s, static_cast<std::uint32_t>(i), y.row(i));
  });
}

/// \brief As `dropout`, with the mask row of row i named by `row_ids[i]`, so that a mask does not depend on
/// grouping.
template <Executor E, IsaPolicy I>
void dropout_rows(context<E, I>& ctx, matrix_view<const float> x, vector_view<const std::int32_t> row_ids,
                  float p, const random_stream& s, matrix_view<float> y) {
  PESC_ASSERT(x.rows == y.rows && x.cols == y.cols && row_ids.size >= x.rows && p >= 0.0f && p < 1.0f);
  detail::for_rows(ctx, x.rows, 8 * x.cols, [&](index_t i) {
    detail::dropout_row(x.row(i), x.cols, p, s, static_cast<std::uint32_t>(row_ids[i]), y.row(i));
  });
}

PESC_CPU_INSTANCE(void fill(context<>&, matrix_view<float>, float))
PESC_CPU_INSTANCE(void fill(context<>&, vector_view<float>, float))
PESC_CPU_INSTANCE(void add_scaled(context<>&, matrix_view<const float>, float, matrix_view<float>))
PESC_CPU_INSTANCE(void add_bias(context<>&, vector_view<const float>, matrix_view<float>))
PESC_CPU_INSTANCE(void dropout(context<>&, matrix_view<const float>, float, const random_stream&,
                               matrix_view<float>))
PESC_CPU_INSTANCE(void dropout_rows(context<>&, matrix_view<const float>, vector_view<const std::int32_t>,
                                    float, const random_stream&, matrix_view<float>))
PESC_CPU_INSTANCE(void gated_activate(context<>&, silu, matrix_view<const float>, matrix_view<const float>,
                                      matrix_view<float>))
PESC_CPU_INSTANCE(void gated_activate_backward(context<>&, silu, matrix_view<const float>,
                                               matrix_view<const float>, matrix_view<const float>,
                                               matrix_view<float>, matrix_view<float>))

}  // namespace PESC_CPU_ABI
}  // namespace pesc::cpu
