// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/gpu/detail/routing_kernels.cuh"

namespace pesc::gpu::detail {

template <int Threads>
__global__ void __launch_bounds__(Threads) number_slots_kernel(int k, device_vector<std::int32_t> token) {
  const index_t s = blockIdx.x * index_t{Threads} + threadIdx.x;
  if (s < token.size) token[s] = static_cast<std::int32_t>(s / k);
}

template <int Threads>
__global__ void __launch_bounds__(Threads)
    gather_values_kernel(device_vector<const float> values, const std::int32_t* index,
                         device_vector<float> y) {
  const index_t i = blockIdx.x * index_t{Threads} + threadIdx.x;
  if (i >= y.size) return;
  const std::int32_t from = index[i];
  y[i] = from >= 0 && from < values.size ? values[from] : 0.0f;
}

template <int Width>
__global__ void scale_rows_kernel(const float* scale, device_matrix<float> y) {
  for_packs<Width>(y.rows, y.cols, [&](index_t row, index_t col) {
    auto values = load_pack<Width>(y.row(row) + col);
#pragma unroll
    for (int i = 0; i < Width; ++i) values[i] *= scale[row];
    store_pack(y.row(row) + col, values);
  });
}

template <int Threads, int Width>
__global__ void __launch_bounds__(team_block)
    combine_rows_backward_kernel(device_matrix<const float> dy, device_matrix<const float> h,
                                 const float* gate, device_groups groups, bool gate_sum,
                                 device_matrix<float> dh, float* dgate) {
  const index_t token = team<Threads>::row();
  const bool inside = token < dy.rows;
  const index_t cols = inside ? dy.cols : 0;
  float rho = 1.0f;
  if (gate_sum) {
    rho = inside ? sum_gates(groups, token, gate) : 0.0f;
    float product = 0.0f;
    for_row<Threads, Width>(cols, [&](index_t col) {
      const auto u = load_pack<Width>(dy.row(token) + col);
      const auto v = load_pack<Width>(h.row(token) + col);
#pragma unroll
      for (int i = 0; i < Width; ++i) product += u[i] * v[i];
    });
    product = team<Threads>::reduce(product, sum_of{});
    if (inside && team<Threads>::rank() == 0)
      for (std::int32_t i = groups.token_offsets[token]; i < groups.token_offsets[token + 1]; ++i) {
        const std::int32_t slot = groups.token_slots[i];
        if (groups.slot_of[slot] >= 0) dgate[slot] += product;
      }
  }
  for_row<Threads, Width>(cols, [&](index_t col) {
    const auto d = load_pack<Width>(dy.row(token) + col);
    auto sum = load_pack<Width>(dh.row(token) + col);
#pragma unroll
    for (int i = 0; i < Width; ++i) sum[i] += rho * d[i];
    store_pack(dh.row(token) + col, sum);
  });
}

}  // namespace pesc::gpu::detail
