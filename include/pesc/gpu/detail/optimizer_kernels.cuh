// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/gpu/detail/elementwise_kernels.cuh"
#include "pesc/nn/adamw.hpp"

namespace pesc::gpu::detail {

/// \brief One AdamW update of one parameter, with the bias correction of the second moment as a factor.
///
/// Root and reciprocal are the approximations of the hardware: they put the update, not the parameter, off by a few units
/// in the last place. Subnormal numbers count as zeros there, which an epsilon above 1e-19 hides.
__device__ inline void adamw_update(const adamw_coefficients& c, float inverse_root, float g, float& p,
                                    float& m, float& v) {
  g *= c.gradient_scale;
  m = c.beta1 * m + c.rest1 * g;
  v = c.beta2 * v + c.rest2 * g * g;
  float root;
  asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(root) : "f"(v));
  float inverse_size;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse_size) : "f"(root * inverse_root + c.epsilon));
  p = p * c.decay - c.step_size * m * inverse_size;
}

/// A thread updates packs of `Width` parameters, the threads of the whole grid side by side; the last size % `Width`
/// parameters go one by one to the first threads.
template <int Threads, int Width>
__global__ void __launch_bounds__(Threads)
    adamw_step_kernel(device_vector<float> p, const float* g, float* m, float* v, adamw_coefficients c,
                      const step_values* values, const double* squared_norm, double max_norm) {
  if (values != nullptr) c = values->adamw;
  if (squared_norm != nullptr) {
    const double squared = *squared_norm;
    if (!isfinite(squared)) return;
    // Double precision is slow on many devices: once per block.
    __shared__ float clip;
    if (threadIdx.x == 0) clip = static_cast<float>(clip_factor(sqrt(squared), max_norm));
    __syncthreads();
    c.gradient_scale *= clip;
  }
  const float inverse_root = 1.0f / c.root_correction;
  const index_t first = blockIdx.x * index_t{Threads} + threadIdx.x;
  const index_t step = index_t{gridDim.x} * Threads * Width;
  const index_t whole = p.size - p.size % Width;
  for (index_t i = first * Width; i < whole; i += step) {
    auto parameters = load_pack<Width>(p.data + i);
    const auto gradients = load_pack<Width>(g + i);
    auto means = load_pack<Width>(m + i);
    auto squares = load_pack<Width>(v + i);
#pragma unroll
    for (int k = 0; k < Width; ++k)
      adamw_update(c, inverse_root, gradients[k], parameters[k], means[k], squares[k]);
    store_pack(p.data + i, parameters);
    store_pack(m + i, means);
    store_pack(v + i, squares);
  }
  if (const index_t i = whole + first; i < p.size) adamw_update(c, inverse_root, g[i], p[i], m[i], v[i]);
}

}  // namespace pesc::gpu::detail
