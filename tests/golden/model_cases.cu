// SPDX-License-Identifier: Apache-2.0

// Kinds llama and camelidae_model on the CUDA backend.

#include "model_case.hpp"
#include "pesc/cuda.cuh"

namespace golden::cuda {

void run_llama(const golden_case& c, outcome& out) {
  pesc::cuda_backend ctx;
  const auto loaded = load_llama(c);
  compare_frequencies(c, out, loaded.weights.shape);
  compare_model<pesc::dense_layer<pesc::moe_dynamic<>, pesc::cuda_backend>>(ctx, c, out, loaded, {}, " cuda");
}

void run_camelidae_model(const golden_case& c, outcome& out) {
  pesc::cuda_backend ctx;
  const auto loaded = load_camelidae(c);
  compare_frequencies(c, out, loaded.weights.shape);
  compare_model<pesc::moe_layer<pesc::moe_dynamic<>, pesc::cuda_backend>>(ctx, c, out, loaded,
                                                                          camelidae_tolerances(c), " cuda");
}

}  // namespace golden::cuda
