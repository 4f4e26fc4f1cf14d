// SPDX-License-Identifier: Apache-2.0

// Kinds router_* on the CUDA backend.

#include "noisy_case.hpp"
#include "pesc/cuda.cuh"
#include "switch_case.hpp"

namespace golden::cuda {

void run_router_top_k(const golden_case& c, outcome& out) {
  pesc::cuda_backend ctx;
  const router_input in(c, "weight");
  for_each_gate_rule(c, [&]<gate_order Order, bool Renormalize>() {
    compare_top_k<Order, Renormalize>(ctx, c, out, in, upstream_gates(c, in), " cuda");
  });
}

void run_router_noisy_topk(const golden_case& c, outcome& out) {
  pesc::cuda_backend ctx;
  compare_noisy_router(ctx, c, out, " cuda");
}

void run_router_switch(const golden_case& c, outcome& out) {
  pesc::cuda_backend ctx;
  compare_switch(ctx, c, out, switch_input(c), " cuda");
}

}  // namespace golden::cuda
