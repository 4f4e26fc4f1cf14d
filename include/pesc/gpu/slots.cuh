// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/gpu/detail/slots_kernels.cuh"
#include "pesc/gpu/reduce.cuh"

namespace pesc::gpu {

/// \brief token[s] = s / k: the slots of a rule that gives every token `k` experts.
template <class Lazy = void>
void number_slots(context& ctx, int k, vector_view<std::int32_t, device_space> token) {
  launch(ctx, "number_slots_kernel", detail::number_slots_kernel<256>, grid_1d(token.size, 256), k, token);
}

/// \brief y[i] = values[index[i]] over the entries of `index` that are valid positions; others become 0.
template <class Lazy = void>
void gather_values(context& ctx, vector_view<const float, device_space> values,
                   vector_view<const std::int32_t, device_space> index, vector_view<float, device_space> y) {
  PESC_ASSERT(index.size >= y.size);
  launch(ctx, "gather_values_kernel", detail::gather_values_kernel<256>, grid_1d(y.size, 256), values,
         index.data, y);
}

/// \brief y[s] = rows[slot_of[s]], 0 for dropped slots.
template <class Lazy = void>
void scatter_values(context& ctx, vector_view<const float, device_space> rows,
                    vector_view<const std::int32_t, device_space> slot_of,
                    vector_view<float, device_space> y) {
  gather_values(ctx, rows, slot_of, y);
}

/// \brief y(i, ·) *= scale[i].
template <class Lazy = void>
void scale_rows(context& ctx, vector_view<const float, device_space> scale,
                matrix_view<float, device_space> y) {
  PESC_ASSERT(scale.size >= y.rows);
  detail::with_width<4>(
      [&](auto width) {
        launch(ctx, "scale_rows_kernel", detail::scale_rows_kernel<width()>,
               detail::map_shape(y.rows, y.cols / width()), scale.data, y);
      },
      y);
}

/// \brief dh += rho dy, rho = 1 or the sum of a token's kept gates; with the sum, dgate[s] += ⟨dy, h⟩ of its
/// token.
template <class Lazy = void>
void combine_rows_backward(context& ctx, matrix_view<const float, device_space> dy,
                           matrix_view<const float, device_space> h,
                           vector_view<const float, device_space> gate,
                           const slot_groups<device_space>& groups, bool gate_sum,
                           matrix_view<float, device_space> dh, vector_view<float, device_space> dgate) {
  PESC_ASSERT(dy.rows == h.rows && dy.cols == h.cols && dy.rows == dh.rows && dy.cols == dh.cols);
  detail::with_team(dy.cols, [&](auto threads) {
    detail::with_width<4>(
        [&](auto width) {
          launch(ctx, "combine_rows_backward_kernel",
                 detail::combine_rows_backward_kernel<threads(), width()>,
                 detail::team_shape(dy.rows, threads), dy, h, gate.data, groups, gate_sum, dh, dgate.data);
        },
        dy, h, dh);
  });
}

}  // namespace pesc::gpu
