// SPDX-License-Identifier: Apache-2.0

// Kinds linear4bit and qlora_linear on the CUDA backend.

#include "pesc/cuda.cuh"
#include "projection_case.hpp"

namespace golden::cuda {

void run_linear4bit(const golden_case& c, outcome& out) {
  pesc::cuda_backend ctx;
  const auto [rows, cols] = projection_sizes(c);
  any_matrix stored = stored_weight(c, format_of(c), rows, cols);
  compare_stored_linear(c, out, stored);
  compare_linear4bit(ctx, c, out, read_projection(c, std::move(stored)), " cuda");
}

void run_qlora_linear(const golden_case& c, outcome& out) {
  pesc::cuda_backend ctx;
  const auto [rows, cols] = projection_sizes(c);
  any_matrix stored = stored_weight(c, format_of(c), rows, cols);
  compare_stored_low_rank(c, out, stored);
  const double tolerance = stored_tolerance(c, 2e-2, product_tolerance<pesc::cuda_backend>(1e-6));
  static_cast<void>(compare_low_rank(ctx, c, out, read_projection(c, std::move(stored)), tolerance, " cuda"));
}

}  // namespace golden::cuda
