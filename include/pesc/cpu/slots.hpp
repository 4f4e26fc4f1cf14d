// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/core/views.hpp"
#include "pesc/cpu/context.hpp"
#include "pesc/moe/routing_types.hpp"

namespace pesc::cpu {
inline namespace PESC_CPU_ABI {

/// \brief token[s] = s / k: the slots of a rule that gives every token `k` experts.
template <Executor E, IsaPolicy I>
void number_slots(context<E, I>&, int k, vector_view<std::int32_t> token) {
  for (index_t s = 0; s < token.size; ++s) token[s] = static_cast<std::int32_t>(s / k);
}

/// \brief y[i] = values[index[i]] over the entries of `index` that are valid positions; others become 0.
template <Executor E, IsaPolicy I>
void gather_values(context<E, I>&, vector_view<const float> values, vector_view<const std::int32_t> index,
                   vector_view<float> y) {
  for (index_t i = 0; i < y.size; ++i)
    y[i] = index[i] >= 0 && index[i] < values.size ? values[index[i]] : 0.0f;
}

/// \brief y[s] = rows[slot_of[s]], 0 for dropped slots.
template <Executor E, IsaPolicy I>
void scatter_values(context<E, I>& ctx, vector_view<const float> rows,
                    vector_view<const std::int32_t> slot_of, vector_view<float> y) {
  gather_values(ctx, rows, slot_of, y);
}

/// \brief y(i, ·) *= scale[i].
template <Executor E, IsaPolicy I>
void scale_rows(context<E, I>& ctx, vector_view<const float> scale, matrix_view<float> y) {
  ctx.executor().parallel_for(y.rows, 256, [&](index_t begin, index_t end, int) {
    for (index_t i = begin; i < end; ++i)
      for (index_t j = 0; j < y.cols; ++j) y(i, j) *= scale[i];
  });
}

/// \brief dh += rho dy, rho = 1 or the sum of a token's kept gates; with the sum, dgate[s] += ⟨dy, h⟩ of its token.
template <Executor E, IsaPolicy I>
void combine_rows_backward(context<E, I>& ctx, matrix_view<const float> dy, matrix_view<const float> h,
                           vector_view<const float> gate, const slot_groups<>& groups, bool gate_sum,
                           matrix_view<float> dh, vector_view<float> dgate) {
  ctx.executor().parallel_for(dy.rows, 64, [&](index_t begin, index_t end, int) {
    for (index_t t = begin; t < end; ++t) {
      float rho = 1.0f;
      if (gate_sum) {
        rho = 0.0f;
        float product = 0.0f;
        for (index_t j = 0; j < dy.cols; ++j) product += dy(t, j) * h(t, j);
        for (index_t i = groups.token_offsets[t]; i < groups.token_offsets[t + 1]; ++i) {
          const std::int32_t slot = groups.token_slots[i];
          if (groups.slot_of[slot] < 0) continue;
          rho += gate[slot];
          dgate[slot] += product;
        }
      }
      for (index_t j = 0; j < dy.cols; ++j) dh(t, j) += rho * dy(t, j);
    }
  });
}

PESC_CPU_INSTANCE(void number_slots(context<>&, int, vector_view<std::int32_t>))
PESC_CPU_INSTANCE(void gather_values(context<>&, vector_view<const float>, vector_view<const std::int32_t>,
                                     vector_view<float>))
PESC_CPU_INSTANCE(void scatter_values(context<>&, vector_view<const float>, vector_view<const std::int32_t>,
                                      vector_view<float>))
PESC_CPU_INSTANCE(void scale_rows(context<>&, vector_view<const float>, matrix_view<float>))
PESC_CPU_INSTANCE(void combine_rows_backward(context<>&, matrix_view<const float>, matrix_view<const float>,
                                             vector_view<const float>, const slot_groups<>&, bool,
                                             matrix_view<float>, vector_view<float>))

}  // namespace PESC_CPU_ABI
}  // namespace pesc::cpu
