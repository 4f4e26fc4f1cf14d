// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/gpu/detail/reduce_kernels.cuh"

namespace pesc::gpu::detail {

template <int Threads, int Width>
__global__ void __launch_bounds__(team_block)
    cross_entropy_kernel(device_matrix<const float> logits, const std::int32_t* targets, float scale,
                         const step_values* values, float* losses, device_matrix<float> dlogits) {
  if (values != nullptr) scale = values->loss_scale;
  const index_t row = team<Threads>::row();
  const bool inside = row < logits.rows;
  const std::int32_t target = inside ? targets[row] : -1;
  const float* x = logits.row(row);
  // Read by all before the reductions, after which the gradient may take the place of the logits.
  const float wanted = target < 0 ? 0.0f : x[target];
  const softmax_terms s = softmax_of<Threads, Width>(x, target < 0 ? 0 : logits.cols);
  if (!inside) return;
  if (team<Threads>::rank() == 0) losses[row] = target < 0 ? 0.0f : logf(s.total) + (s.top - wanted);
  if (dlogits.data == nullptr) return;
  const float factor = scale / s.total;
  for_row<Threads, Width>(logits.cols, [&](index_t col) {
    pack<float, Width> d = {};
    if (target >= 0) {
      d = load_pack<Width>(x + col);
#pragma unroll
      for (int i = 0; i < Width; ++i) {
        d[i] = factor * exp_below(no_nan(d[i]), s.top);
        if (col + i == target) d[i] -= scale;
      }
    }
    store_pack(dlogits.row(row) + col, d);
  });
}

template <int Width>
__global__ void embedding_kernel(device_matrix<const float> table, const std::int32_t* ids,
                                 device_matrix<float> y) {
  for_packs<Width>(y.rows, y.cols, [&](index_t row, index_t col) {
    store_pack(y.row(row) + col, load_pack<Width>(table.row(ids[row]) + col));
  });
}

}  // namespace pesc::gpu::detail
