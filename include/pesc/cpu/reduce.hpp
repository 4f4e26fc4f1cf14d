// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>

#include "pesc/core/views.hpp"
#include "pesc/core/workspace.hpp"
#include "pesc/cpu/context.hpp"
#include "pesc/cpu/elementwise.hpp"
#include "pesc/moe/routing_types.hpp"

namespace pesc::cpu {
inline namespace PESC_CPU_ABI {
namespace detail {

/// \brief exp(x - top), with 1 for the largest itself, so that rows of infinities stay defined.
inline float exp_below(float x, float top) { return x == top ? 1.0f : std::exp(x - top); }

/// \brief What a softmax reads where a row holds NaN: the smallest value there is.
inline float no_nan(float x) { return x != x ? -HUGE_VALF : x; }

/// \brief Largest element and sum of exp(x - top) of a row; the softmax of x is exp_below(x, top) / total.
struct softmax_terms {
  float top = -HUGE_VALF;
  float total = 0.0f;

  [[nodiscard]] float lse() const { return top + std::log(total); }
  [[nodiscard]] float probability(float x) const { return exp_below(no_nan(x), top) / total; }
};

inline softmax_terms softmax_of(const float* x, index_t n) {
  softmax_terms s;
  for (index_t j = 0; j < n; ++j) s.top = std::max(s.top, no_nan(x[j]));
  for (index_t j = 0; j < n; ++j) s.total += exp_below(no_nan(x[j]), s.top);
  return s;
}

/// \brief Indices of the `k` largest of `n` values, best first; ties go to the lower index, NaN counts as
/// -infinity.
inline void top_k(const float* x, index_t n, int k, std::int32_t* best) {
  float values[max_top_k];
  int count = 0;
  for (index_t e = 0; e < n; ++e) {
    const float value = no_nan(x[e]);
    if (count == k && !(value > values[k - 1])) continue;
    int place = count < k ? count++ : k - 1;
    for (; place > 0 && value > values[place - 1]; --place) {
      values[place] = values[place - 1];
      best[place] = best[place - 1];
    }
    values[place] = value;
    best[place] = static_cast<std::int32_t>(e);
  }
}

/// \brief Most partial results a reduction keeps; longer inputs get longer chunks.
inline constexpr index_t reduction_parts = 256;

}  // namespace detail

/// \brief y[j] += sum of column j.
template <Executor E, IsaPolicy I>
void column_sum(context<E, I>& ctx, matrix_view<const float> x, vector_view<float> y) {
  PESC_ASSERT(x.cols == y.size);
  if (x.empty()) return;
  // Threads take columns, so that the order of additions within one is that of the rows.
  constexpr index_t width = 64;
  ctx.executor().parallel_for(x.cols, width, [&](index_t begin, index_t end, int) {
    double sums[width] = {};
    for (index_t i = 0; i < x.rows; ++i)
      for (index_t j = begin; j < end; ++j) sums[j - begin] += static_cast<double>(x(i, j));
    for (index_t j = begin; j < end; ++j) y[j] += static_cast<float>(sums[j - begin]);
  });
}

/// \brief Sum of squares, in double.
template <Executor E, IsaPolicy I>
[[nodiscard]] double squared_norm(context<E, I>& ctx, vector_view<const float> x) {
  double parts[detail::reduction_parts] = {};
  const index_t grain = std::max<index_t>(4096, ceil_div(x.size, detail::reduction_parts));
  ctx.executor().parallel_for(x.size, grain, [&](index_t begin, index_t end, int) {
    double sum = 0.0;
    for (index_t i = begin; i < end; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
    parts[begin / grain] = sum;
  });
  double sum = 0.0;
  for (const double part : parts) sum += part;
  return sum;
}

/// \brief out[0] = sum of squares, in double.
template <Executor E, IsaPolicy I>
void squared_norm(context<E, I>& ctx, vector_view<const float> x, vector_view<double> out, workspace<>& ws) {
  if (!ws.counting()) out[0] = squared_norm(ctx, x);
}

/// \brief Whether no element is NaN or infinite.
template <Executor E, IsaPolicy I>
[[nodiscard]] bool all_finite(context<E, I>& ctx, matrix_view<const float> x) {
  std::atomic<bool> finite{true};
  detail::for_rows(ctx, x.rows, x.cols, [&](index_t i) {
    bool row_finite = true;
    for (index_t j = 0; j < x.cols; ++j) row_finite &= std::isfinite(x(i, j));
    if (!row_finite) finite.store(false, std::memory_order_relaxed);
  });
  return finite.load(std::memory_order_relaxed);
}

template <Executor E, IsaPolicy I>
[[nodiscard]] bool all_finite(context<E, I>& ctx, vector_view<const float> x) {
  // Cut to rows only so that threads can share the work.
  constexpr index_t width = 16384;
  const index_t rows = x.size / width;
  return all_finite(ctx, matrix_view<const float>{x.data, rows, width}) &&
         all_finite(ctx, matrix_view<const float>{x.data + rows * width, 1, x.size - rows * width});
}

/// \brief y[i] = <a_i, b_i>.
template <Executor E, IsaPolicy I>
void row_dot(context<E, I>& ctx, matrix_view<const float> a, matrix_view<const float> b,
             vector_view<float> y) {
  PESC_ASSERT(a.rows == b.rows && a.cols == b.cols && y.size >= a.rows);
  detail::for_rows_with_kernels(ctx, a.rows, a.cols, [&](auto kernels, index_t i) {
    y[i] = decltype(kernels)::dot(a.row(i), b.row(i), a.cols);
  });
}

/// \brief Softmax of every row; NaN counts as -infinity, a row of -infinity becomes uniform; `y` may be `x`.
template <Executor E, IsaPolicy I>
void softmax_rows(context<E, I>& ctx, matrix_view<const float> x, matrix_view<float> y) {
  PESC_ASSERT(x.rows == y.rows && x.cols == y.cols);
  detail::for_rows_with_kernels(ctx, x.rows, 4 * x.cols, [&](auto kernels, index_t i) {
    using kernel = decltype(kernels);
    const float top = kernel::row_max(x.row(i), x.cols);
    if (std::isfinite(top)) {
      const float total = kernel::template exp_row<true>(x.row(i), top, y.row(i), x.cols);
      kernel::scaled(y.row(i), 1.0f / total, y.row(i), x.cols);
    } else {
      const detail::softmax_terms s = detail::softmax_of(x.row(i), x.cols);
      for (index_t j = 0; j < x.cols; ++j) y(i, j) = s.probability(x(i, j));
    }
  });
}

PESC_CPU_INSTANCE(void column_sum(context<>&, matrix_view<const float>, vector_view<float>))
PESC_CPU_INSTANCE(double squared_norm(context<>&, vector_view<const float>))
PESC_CPU_INSTANCE(void squared_norm(context<>&, vector_view<const float>, vector_view<double>, workspace<>&))
PESC_CPU_INSTANCE(bool all_finite(context<>&, matrix_view<const float>))
PESC_CPU_INSTANCE(bool all_finite(context<>&, vector_view<const float>))
PESC_CPU_INSTANCE(void row_dot(context<>&, matrix_view<const float>, matrix_view<const float>,
                               vector_view<float>))
PESC_CPU_INSTANCE(void softmax_rows(context<>&, matrix_view<const float>, matrix_view<float>))

}  // namespace PESC_CPU_ABI
}  // namespace pesc::cpu
