// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "pesc/core/views.hpp"
#include "pesc/core/workspace.hpp"
#include "pesc/cpu/context.hpp"
#include "pesc/cpu/elementwise.hpp"
#include "pesc/cpu/reduce.hpp"
#include "pesc/moe/routing_types.hpp"

namespace pesc::cpu {
inline namespace PESC_CPU_ABI {

/// \brief offsets[g] = first row of group g when every group but the last has `size` rows.
template <Executor E, IsaPolicy I>
void number_groups(context<E, I>&, index_t size, index_t rows, vector_view<std::int32_t> offsets) {
  for (index_t g = 0; g < offsets.size; ++g) offsets[g] = static_cast<std::int32_t>(std::min(g * size, rows));
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
template <Executor E, IsaPolicy I>
void switch_assign(context<E, I>& ctx, matrix_view<const float> logits,
                   vector_view<const std::int32_t> group_offsets, index_t capacity,
                   vector_view<std::int32_t> expert, vector_view<float> gate,
                   vector_view<std::int32_t> choice, workspace<>& ws) {
  const index_t experts = logits.cols;
  const workspace<>::scope scope(ws);
  const vector_view<index_t> taken = ws.take<index_t>(experts);
  if (ws.counting() || logits.rows == 0) return;
  PESC_ASSERT(expert.size >= logits.rows && gate.size >= logits.rows && group_offsets.size >= 1);
  detail::for_rows(ctx, logits.rows, 4 * experts, [&](index_t t) {
    const float* x = logits.row(t);
    index_t best = 0;
    for (index_t e = 1; e < experts; ++e)
      if (detail::no_nan(x[e]) > detail::no_nan(x[best])) best = e;
    expert[t] = static_cast<std::int32_t>(best);
    gate[t] = detail::softmax_of(x, experts).probability(x[best]);
    if (!choice.empty()) choice[t] = expert[t];
  });
  for (index_t g = 0; g + 1 < group_offsets.size; ++g) {
    std::fill(taken.begin(), taken.end(), index_t{0});
    for (index_t t = group_offsets[g]; t < group_offsets[g + 1]; ++t) {
      if (taken[expert[t]]++ < capacity) continue;
      expert[t] = static_cast<std::int32_t>(experts);
      gate[t] = 0.0f;
    }
  }
}

/// \brief dlogits += gradient of the gates of `switch_assign`; dropped tokens have none.
template <Executor E, IsaPolicy I>
void switch_backward(context<E, I>& ctx, matrix_view<const float> logits,
                     vector_view<const std::int32_t> expert, vector_view<const float> dgate,
                     matrix_view<float> dlogits) {
  const index_t experts = logits.cols;
  detail::for_rows(ctx, logits.rows, 8 * experts, [&](index_t t) {
    if (expert[t] >= experts) return;
    const detail::softmax_terms s = detail::softmax_of(logits.row(t), experts);
    const float weighted = dgate[t] * s.probability(logits(t, expert[t]));
    for (index_t e = 0; e < experts; ++e) dlogits(t, e) -= weighted * s.probability(logits(t, e));
    dlogits(t, expert[t]) += weighted;
  });
}

PESC_CPU_INSTANCE(void number_groups(context<>&, index_t, index_t, vector_view<std::int32_t>))
PESC_CPU_INSTANCE(void switch_assign(context<>&, matrix_view<const float>, vector_view<const std::int32_t>,
                                     index_t, vector_view<std::int32_t>, vector_view<float>,
                                     vector_view<std::int32_t>, workspace<>&))
PESC_CPU_INSTANCE(void switch_backward(context<>&, matrix_view<const float>, vector_view<const std::int32_t>,
                                       vector_view<const float>, matrix_view<float>))

}  // namespace PESC_CPU_ABI
}  // namespace pesc::cpu
