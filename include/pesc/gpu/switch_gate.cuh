// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/core/workspace.hpp"
#include "pesc/gpu/detail/switch_gate_kernels.cuh"
#include "pesc/gpu/reduce.cuh"

namespace pesc::gpu {

/// \brief offsets[g] = first row of group g when every group but the last has `size` rows.
template <class Lazy = void>
void number_groups(context& ctx, index_t size, index_t rows,
                   vector_view<std::int32_t, device_space> offsets) {
  launch(ctx, "number_groups_kernel", detail::number_groups_kernel<256>, grid_1d(offsets.size, 256), size,
         rows, offsets);
}

/// \brief Top-1 choice with capacity: Fedus, Zoph, Shazeer, "Switch transformers" (2021).
///
/// The gate is the probability of the best expert. Within a group of rows each expert takes its first
/// `capacity` tokens; a later one is dropped: its expert becomes `logits.cols` and its gate 0. Ties go to the
/// lower index.
///
/// \param group_offsets  [groups + 1], first row of each group (a sequence) and the end of the last
/// \param capacity  tokens per expert and group
/// \param choice  [tokens], the expert before dropping, which the balance loss counts; may be empty
/// \throws shape_error when the experts' counters do not fit into shared memory (beyond 25 000 on every
/// device)
template <class Lazy = void>
void switch_assign(context& ctx, matrix_view<const float, device_space> logits,
                   vector_view<const std::int32_t, device_space> group_offsets, index_t capacity,
                   vector_view<std::int32_t, device_space> expert, vector_view<float, device_space> gate,
                   vector_view<std::int32_t, device_space> choice, workspace<device_space>& ws) {
  if (ws.counting() || logits.rows == 0) return;
  PESC_ASSERT(expert.size >= logits.rows && gate.size >= logits.rows && group_offsets.size >= 1);
  detail::with_expert_team(logits.cols, [&](auto threads) {
    launch(ctx, "switch_assign_kernel", detail::switch_assign_kernel<threads()>,
           detail::team_shape(logits.rows, threads), logits, expert.data, gate.data,
           choice.empty() ? nullptr : choice.data);
  });
  launch_shape shape = grid_1d((group_offsets.size - 1) * 32, 32);
  shape.shared_bytes = logits.cols * index_t{sizeof(std::int32_t)};
  launch(ctx, "switch_drop_kernel", detail::switch_drop_kernel<32>, shape, group_offsets.data,
         static_cast<int>(logits.cols), capacity, expert.data, gate.data);
}

/// \brief dlogits += gradient of the gates of `switch_assign`; dropped tokens have none.
template <class Lazy = void>
void switch_backward(context& ctx, matrix_view<const float, device_space> logits,
                     vector_view<const std::int32_t, device_space> expert,
                     vector_view<const float, device_space> dgate, matrix_view<float, device_space> dlogits) {
  detail::with_expert_team(logits.cols, [&](auto threads) {
    launch(ctx, "switch_backward_kernel", detail::switch_backward_kernel<threads()>,
           detail::team_shape(logits.rows, threads), logits, expert.data, dgate.data, dlogits);
  });
}

}  // namespace pesc::gpu
