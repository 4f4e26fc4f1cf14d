// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "pesc/core/views.hpp"
#include "pesc/cpu/context.hpp"
#include "pesc/cpu/elementwise.hpp"

namespace pesc::cpu {
inline namespace PESC_CPU_ABI {

/// \brief y = x / sqrt(mean(x²) + eps) * weight per row; keeps the factor of each row in `inv_rms` for
/// backward.
///
/// Zhang, Sennrich, "Root mean square layer normalization" (2019). `y` may be `x`.
template <Executor E, IsaPolicy I>
void rms_norm(context<E, I>& ctx, matrix_view<const float> x, vector_view<const float> weight, float eps,
              matrix_view<float> y, vector_view<float> inv_rms) {
  PESC_ASSERT(x.rows == y.rows && x.cols == y.cols && weight.size == x.cols && inv_rms.size >= x.rows);
  detail::for_rows_with_kernels(ctx, x.rows, x.cols, [&](auto kernels, index_t i) {
    using kernel = decltype(kernels);
    const float mean = kernel::dot(x.row(i), x.row(i), x.cols) / static_cast<float>(x.cols);
    const float inv = 1.0f / std::sqrt(mean + eps);
    inv_rms[i] = inv;
    kernel::norm_row(x.row(i), inv, weight.data, y.row(i), x.cols);
  });
}

/// \brief dx += gradient of `rms_norm` with respect to its input; the weight is frozen.
template <Executor E, IsaPolicy I>
void rms_norm_backward(context<E, I>& ctx, matrix_view<const float> x, vector_view<const float> weight,
                       vector_view<const float> inv_rms, matrix_view<const float> dy, matrix_view<float> dx) {
  PESC_ASSERT(x.rows == dy.rows && x.cols == dy.cols && x.rows == dx.rows && x.cols == dx.cols);
  detail::for_rows_with_kernels(ctx, x.rows, x.cols, [&](auto kernels, index_t i) {
    using kernel = decltype(kernels);
    const float inv = inv_rms[i];
    const float mean = kernel::dot(x.row(i), dy.row(i), weight.data, x.cols) / static_cast<float>(x.cols);
    kernel::norm_backward_row(x.row(i), weight.data, dy.row(i), inv, mean * inv * inv * inv, dx.row(i),
                              x.cols);
  });
}

PESC_CPU_INSTANCE(void rms_norm(context<>&, matrix_view<const float>, vector_view<const float>, float,
                                matrix_view<float>, vector_view<float>))
PESC_CPU_INSTANCE(void rms_norm_backward(context<>&, matrix_view<const float>, vector_view<const float>,
                                         vector_view<const float>, matrix_view<const float>,
                                         matrix_view<float>))

}  // namespace PESC_CPU_ABI
}  // namespace pesc::cpu
