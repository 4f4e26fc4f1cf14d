// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/gpu/detail/norm_kernels.cuh"
#include "pesc/gpu/reduce.cuh"

namespace pesc::gpu {

/// \brief y = x / sqrt(mean(x²) + eps) * weight per row; keeps the factor of each row in `inv_rms` for backward.
///
/// Zhang, Sennrich, "Root mean square layer normalization" (2019). `y` may be `x`.
template <class Lazy = void>
void rms_norm(context& ctx, matrix_view<const float, device_space> x,
              vector_view<const float, device_space> weight, float eps, matrix_view<float, device_space> y,
              vector_view<float, device_space> inv_rms) {
  PESC_ASSERT(x.rows == y.rows && x.cols == y.cols && weight.size == x.cols && inv_rms.size >= x.rows);
  detail::with_team(x.cols, [&](auto threads) {
    detail::with_width<4>(
        [&](auto width) {
          launch(ctx, "rms_norm_kernel", detail::rms_norm_kernel<threads(), width()>,
                 detail::team_shape(x.rows, threads), x, weight, eps, y, inv_rms);
        },
        x, weight, y);
  });
}

/// \brief dx += gradient of `rms_norm` with respect to its input; the weight is frozen.
template <class Lazy = void>
void rms_norm_backward(context& ctx, matrix_view<const float, device_space> x,
                       vector_view<const float, device_space> weight,
                       vector_view<const float, device_space> inv_rms,
                       matrix_view<const float, device_space> dy, matrix_view<float, device_space> dx) {
  PESC_ASSERT(x.rows == dy.rows && x.cols == dy.cols && x.rows == dx.rows && x.cols == dx.cols);
  detail::with_team(x.cols, [&](auto threads) {
    detail::with_width<4>(
        [&](auto width) {
          launch(ctx, "rms_norm_backward_kernel", detail::rms_norm_backward_kernel<threads(), width()>,
                 detail::team_shape(x.rows, threads), x, weight, inv_rms, dy, dx);
        },
        x, weight, dy, dx);
  });
}

}  // namespace pesc::gpu
