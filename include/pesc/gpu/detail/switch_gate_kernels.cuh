// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/gpu/detail/expert_rows.cuh"
#include "pesc/gpu/detail/warp.cuh"

namespace pesc::gpu::detail {

template <int Threads>
__global__ void __launch_bounds__(Threads)
    number_groups_kernel(index_t size, index_t rows, device_vector<std::int32_t> offsets) {
  const index_t g = blockIdx.x * index_t{Threads} + threadIdx.x;
  if (g < offsets.size) offsets[g] = static_cast<std::int32_t>(min(g * size, rows));
}

/// The best expert of each row and its probability.
template <int Threads>
__global__ void __launch_bounds__(team_block)
    switch_assign_kernel(device_matrix<const float> logits, std::int32_t* expert, float* gate,
                         std::int32_t* choice) {
  const index_t t = team<Threads>::row();
  const bool inside = t < logits.rows;
  const index_t experts = inside ? logits.cols : 0;
  const ranked_expert best = next_expert<Threads>(logits.row(t), experts, before_all());
  const softmax_terms s = softmax_of<Threads, 1>(logits.row(t), experts);
  if (!inside || team<Threads>::rank() != 0) return;
  expert[t] = best.expert;
  gate[t] = probability(s, best.value);
  if (choice != nullptr) choice[t] = best.expert;
}

/// Block g drops the tokens of group g that are too many for their expert; one warp, which walks through the
/// group.
template <int Threads>
__global__ void __launch_bounds__(Threads)
    switch_drop_kernel(const std::int32_t* group_offsets, int experts, index_t capacity, std::int32_t* expert,
                       float* gate) {
  static_assert(Threads == 32);
  extern __shared__ std::int32_t switch_taken[];  // tokens of the group that each expert has taken so far
  for (int e = lane_of_warp(); e < experts; e += 32) switch_taken[e] = 0;
  __syncwarp();
  const index_t end = group_offsets[blockIdx.x + 1];
  for (index_t first = group_offsets[blockIdx.x]; first < end; first += 32) {
    const index_t t = first + lane_of_warp();
    const bool inside = t < end;
    const int mine = inside ? expert[t] : -1;
    const unsigned same = __match_any_sync(whole_warp, mine);
    const int before = count_before(same);
    const int taken = inside ? switch_taken[mine] : 0;
    __syncwarp();
    if (inside && before == 0) switch_taken[mine] = taken + __popc(same);
    __syncwarp();
    if (inside && taken + before >= capacity) {
      expert[t] = experts;
      gate[t] = 0.0f;
    }
  }
}

template <int Threads>
__global__ void __launch_bounds__(team_block)
    switch_backward_kernel(device_matrix<const float> logits, const std::int32_t* expert, const float* dgate,
                           device_matrix<float> dlogits) {
  const index_t t = team<Threads>::row();
  const int chosen = t < logits.rows ? expert[t] : 0;
  const index_t experts = t < logits.rows && chosen < logits.cols ? logits.cols : 0;
  const softmax_terms s = softmax_of<Threads, 1>(logits.row(t), experts);
  if (experts == 0) return;
  const float weighted = dgate[t] * probability(s, logits(t, chosen));
  for (index_t e = team<Threads>::rank(); e < experts; e += Threads) {
    const float d = dlogits(t, e) - weighted * probability(s, logits(t, e));
    dlogits(t, e) = e == chosen ? d + weighted : d;
  }
}

}  // namespace pesc::gpu::detail
