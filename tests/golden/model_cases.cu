// SPDX-License-Identifier: Apache-2.0

// Kinds llama, camelidae_model, bnb_checkpoint and lora_model on the CUDA backend.

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

void run_bnb_checkpoint(const golden_case& c, outcome& out) {
  pesc::cuda_backend ctx;
  compare_model<pesc::dense_layer<pesc::moe_dynamic<>, pesc::cuda_backend>>(
      ctx, c, out, load_bnb_checkpoint(c), {}, " cuda");
}

void run_lora_model(const golden_case& c, outcome& out) {
  using layer = pesc::dense_layer<pesc::moe_dynamic<>, pesc::cuda_backend>;
  pesc::cuda_backend ctx;
  compare_model<layer>(ctx, c, out, load_with_adapter(c, false), {}, " live cuda");
  compare_model<layer>(ctx, c, out, load_with_adapter(c, true), {.expected_logits = "expected.logits_merged"},
                       " merged cuda");
}

}  // namespace golden::cuda
