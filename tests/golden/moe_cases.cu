// SPDX-License-Identifier: Apache-2.0

// Kinds camelidae_moe and sparsetral_moe on the CUDA backend.

#include "layer_case.hpp"
#include "pesc/cuda.cuh"

namespace golden::cuda {

void run_camelidae_moe(const golden_case& c, outcome& out) {
  pesc::cuda_backend ctx;
  compare_moe<gate_order::softmax_after_top_k>(ctx, c, out, layer_case(c, camelidae_names), " cuda");
  compare_constant_loss(ctx, c, out);
}

void run_sparsetral_moe(const golden_case& c, outcome& out) {
  pesc::cuda_backend ctx;
  compare_moe<gate_order::softmax_before_top_k>(ctx, c, out, layer_case(c, sparsetral_names), " cuda");
}

}  // namespace golden::cuda
