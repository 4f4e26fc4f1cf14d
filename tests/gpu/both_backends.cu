// SPDX-License-Identifier: Apache-2.0

// Both backends in one unit: compiles, and each keeps its own operations.

#include "pesc/cuda.cuh"
#include "pesc/pesc.hpp"

template class pesc::moe_layer<pesc::moe_defaults, pesc::cuda_backend>;

pesc::matrix_view<float> run_on_cpu(pesc::cpu_backend& ctx, pesc::matrix_view<float> y) {
  fill(ctx, y, 1.0f);
  return y;
}

void run_on_device(pesc::cuda_backend& ctx, pesc::matrix_view<float, pesc::device_space> y) {
  fill(ctx, y, 1.0f);
}
