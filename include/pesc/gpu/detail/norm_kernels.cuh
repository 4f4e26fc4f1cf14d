// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/gpu/detail/reduce_kernels.cuh"

namespace pesc::gpu::detail {

/// A team's threads meet the same elements in both passes, so that the second finds them in the first-level cache.
template <int Threads, int Width>
__global__ void __launch_bounds__(team_block)
    rms_norm_kernel(device_matrix<const float> x, device_vector<const float> weight, float eps,
                    device_matrix<float> y, device_vector<float> inv_rms) {
  const index_t row = team<Threads>::row();
  const index_t cols = row < x.rows ? x.cols : 0;
  float sum = 0.0f;
  for_row<Threads, Width>(cols, [&](index_t col) {
    const auto values = load_pack<Width>(x.row(row) + col);
#pragma unroll
    for (int i = 0; i < Width; ++i) sum += values[i] * values[i];
  });
  sum = team<Threads>::reduce(sum, sum_of{});
  const float inv = 1.0f / sqrtf(sum / static_cast<float>(x.cols) + eps);
  if (row < x.rows && team<Threads>::rank() == 0) inv_rms[row] = inv;
  for_row<Threads, Width>(cols, [&](index_t col) {
    auto values = load_pack<Width>(x.row(row) + col);
    const auto weights = load_pack<Width>(weight.data + col);
#pragma unroll
    for (int i = 0; i < Width; ++i) values[i] *= inv * weights[i];
    store_pack(y.row(row) + col, values);
  });
}

/// dx += inv (dy weight - x inv² <x, dy weight> / cols).
template <int Threads, int Width>
__global__ void __launch_bounds__(team_block)
    rms_norm_backward_kernel(device_matrix<const float> x, device_vector<const float> weight,
                             device_vector<const float> inv_rms, device_matrix<const float> dy,
                             device_matrix<float> dx) {
  const index_t row = team<Threads>::row();
  const index_t cols = row < x.rows ? x.cols : 0;
  float sum = 0.0f;
  for_row<Threads, Width>(cols, [&](index_t col) {
    const auto values = load_pack<Width>(x.row(row) + col);
    const auto weights = load_pack<Width>(weight.data + col);
    const auto d = load_pack<Width>(dy.row(row) + col);
#pragma unroll
    for (int i = 0; i < Width; ++i) sum += values[i] * (d[i] * weights[i]);
  });
  sum = team<Threads>::reduce(sum, sum_of{});
  if (cols == 0) return;
  const float inv = inv_rms[row];
  const float along = sum / static_cast<float>(cols) * inv * inv;
  for_row<Threads, Width>(cols, [&](index_t col) {
    const auto values = load_pack<Width>(x.row(row) + col);
    const auto weights = load_pack<Width>(weight.data + col);
    const auto d = load_pack<Width>(dy.row(row) + col);
    auto sums = load_pack<Width>(dx.row(row) + col);
#pragma unroll
    for (int i = 0; i < Width; ++i) sums[i] += inv * (d[i] * weights[i] - values[i] * along);
    store_pack(dx.row(row) + col, sums);
  });
}

}  // namespace pesc::gpu::detail
