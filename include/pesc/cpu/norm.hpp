// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "pesc/core/views.hpp"
#include "pesc/cpu/context.hpp"
#include "pesc/cpu/elementwise.hpp"

namespace pesc::cpu {
inline namespace PESC_CPU_ABI {

/// \brief y = x / sqrt(mean(x²) + eps) * weight per row; keeps the factor of each row in `inv_rms` for backward.
///
/// Zhang, Sennrich, "Root mean square layer normalization" (2019). `y` may be `x`.
template <Executor E, IsaPolicy I>
void rms_norm(context<E, I>& ctx, matrix_view<const float> x, vector_view<const float> weight, float eps,
              matrix_view<float> y, vector_view<float> inv_rms) {
  PESC_ASSERT(x.rows == y.rows && x.cols == y.cols && weight.size == x.cols && inv_rms.size >= x.rows);
  detail::for_rows(ctx, x.rows, x.cols, [&](index_t i) {
    double sum = 0.0;
    for (index_t j = 0; j < x.cols; ++j) sum += static_cast<double>(x(i, j)) * static_cast<double>(x(i, j));
    const double mean = sum / static_cast<double>(x.cols);
    const float inv = static_cast<float>(1.0 / std::sqrt(mean + static_cast<double>(eps)));
    inv_rms[i] = inv;
    for (index_t j = 0; j < x.cols; ++j) y(i, j) = x(i, j) * inv * weight[j];
  });
}

/// \brief dx += gradient of `rms_norm` with respect to its input; the weight is frozen.
template <Executor E, IsaPolicy I>
void rms_norm_backward(context<E, I>& ctx, matrix_view<const float> x, vector_view<const float> weight,
                       vector_view<const float> inv_rms, matrix_view<const float> dy, matrix_view<float> dx) {
  PESC_ASSERT(x.rows == dy.rows && x.cols == dy.cols && x.rows == dx.rows && x.cols == dx.cols);
  detail::for_rows(ctx, x.rows, x.cols, [&](index_t i) {
    double dot = 0.0;
    for (index_t j = 0; j < x.cols; ++j)
      dot += static_cast<double>(x(i, j)) * static_cast<double>(dy(i, j) * weight[j]);
    const float inv = inv_rms[i];
    const float along = static_cast<float>(dot / static_cast<double>(x.cols)) * inv * inv * inv;
    for (index_t j = 0; j < x.cols; ++j) dx(i, j) += dy(i, j) * weight[j] * inv - x(i, j) * along;
  });
}

}  // namespace PESC_CPU_ABI
}  // namespace pesc::cpu
