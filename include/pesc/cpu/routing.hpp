// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <utility>

#include "pesc/core/views.hpp"
#include "pesc/core/workspace.hpp"
#include "pesc/cpu/context.hpp"
#include "pesc/cpu/elementwise.hpp"
#include "pesc/cpu/noisy_gate.hpp"
#include "pesc/cpu/reduce.hpp"
#include "pesc/cpu/switch_gate.hpp"
#include "pesc/moe/routing_types.hpp"

namespace pesc::cpu {
inline namespace PESC_CPU_ABI {
/// \brief Chooses the k experts with the largest logits of every row and their gates.
///
/// Slot t * k + j holds the j-th best expert of token t. Ties go to the lower index; NaN counts as -infinity;
/// a row of -infinity takes experts 0 to k - 1 with equal gates. 1 <= k <= min(experts, max_top_k).
template <Executor E, IsaPolicy I>
void top_k_softmax(context<E, I>& ctx, matrix_view<const float> logits, int k, const gate_options& options,
                   vector_view<std::int32_t> expert, vector_view<float> gate) {
  PESC_ASSERT(k >= 1 && k <= max_top_k && k <= logits.cols);
  PESC_ASSERT(expert.size >= logits.rows * k && gate.size >= logits.rows * k);
  const bool over_all = options.order == gate_order::softmax_before_top_k && !options.renormalize;
  detail::for_rows(ctx, logits.rows, 8 * logits.cols, [&](index_t t) {
    const float* x = logits.row(t);
    std::int32_t* chosen = expert.data + t * k;
    float* weight = gate.data + t * k;
    detail::top_k(x, logits.cols, k, chosen);
    for (int j = 0; j < k; ++j) weight[j] = x[chosen[j]];
    const detail::softmax_terms s =
        over_all ? detail::softmax_of(x, logits.cols) : detail::softmax_of(weight, k);
    for (int j = 0; j < k; ++j) weight[j] = s.probability(weight[j]);
  });
}

/// \brief dlogits += gradient of `top_k_softmax`.
///
/// Without renormalisation the softmax over all experts passes a gradient to the unselected ones too.
template <Executor E, IsaPolicy I>
void top_k_softmax_backward(context<E, I>& ctx, matrix_view<const float> logits, int k,
                            const gate_options& options, vector_view<const std::int32_t> expert,
                            vector_view<const float> gate, vector_view<const float> dgate,
                            matrix_view<float> dlogits) {
  const bool over_all = options.order == gate_order::softmax_before_top_k && !options.renormalize;
  detail::for_rows(ctx, logits.rows, 8 * logits.cols, [&](index_t t) {
    const std::int32_t* chosen = expert.data + t * k;
    const float* g = gate.data + t * k;
    const float* d = dgate.data + t * k;
    float mean = 0.0f;
    for (int j = 0; j < k; ++j) mean += g[j] * d[j];
    if (over_all) {
      const detail::softmax_terms s = detail::softmax_of(logits.row(t), logits.cols);
      for (index_t e = 0; e < logits.cols; ++e) dlogits(t, e) -= s.probability(logits(t, e)) * mean;
      for (int j = 0; j < k; ++j) dlogits(t, chosen[j]) += g[j] * d[j];
    } else {
      for (int j = 0; j < k; ++j) dlogits(t, chosen[j]) += g[j] * (d[j] - mean);
    }
  });
}

namespace detail {

/// \brief Stable counting sort of positions 0..n-1 by key; positions whose key is `buckets` go last.
///
/// \param offsets  [buckets + 1], first place of each bucket and the end of the last
/// \param order  [n], positions sorted
inline void counting_sort(vector_view<const std::int32_t> keys, index_t buckets, std::int32_t* offsets,
                          std::int32_t* order) {
  std::fill_n(offsets, buckets + 1, 0);
  for (const std::int32_t key : keys) {
    PESC_ASSERT(key >= 0 && key <= buckets);
    ++offsets[key];
  }
  std::int32_t before = 0;
  for (index_t b = 0; b <= buckets; ++b) before += std::exchange(offsets[b], before);
  for (index_t i = 0; i < keys.size; ++i) order[offsets[keys[i]]++] = static_cast<std::int32_t>(i);
  // Every offset has moved on to the start of the next bucket.
  for (index_t b = buckets; b > 0; --b) offsets[b] = offsets[b - 1];
  offsets[0] = 0;
}

}  // namespace detail

/// \brief Orders slots by expert and by token; fills every array of `groups` from its `experts` and `tokens`.
///
/// An expert index of `groups.experts` marks a dropped slot: its `slot_of` is -1, and it stands behind the
/// grouped rows in `slots` and `token_of`, so that every entry there names a valid slot and token.
template <Executor E, IsaPolicy I>
void group_by_expert(context<E, I>&, vector_view<const std::int32_t> token,
                     vector_view<const std::int32_t> expert, slot_groups<> groups, workspace<>& ws) {
  if (ws.counting()) return;
  PESC_ASSERT(token.size == expert.size && groups.slots.size >= expert.size);
  PESC_ASSERT(groups.expert_offsets.size == groups.experts + 1 &&
              groups.token_offsets.size == groups.tokens + 1);
  detail::counting_sort(expert, groups.experts, groups.expert_offsets.data, groups.slots.data);
  detail::counting_sort(token, groups.tokens, groups.token_offsets.data, groups.token_slots.data);
  const index_t kept = groups.expert_offsets[groups.experts];
  for (index_t row = 0; row < expert.size; ++row) {
    const std::int32_t slot = groups.slots[row];
    groups.slot_of[slot] = row < kept ? static_cast<std::int32_t>(row) : -1;
    groups.token_of[row] = token[slot];
  }
}

/// \brief y[i] = x[rows[i]].
template <Executor E, IsaPolicy I>
void gather_rows(context<E, I>& ctx, matrix_view<const float> x, vector_view<const std::int32_t> rows,
                 matrix_view<float> y) {
  PESC_ASSERT(rows.size >= y.rows && x.cols == y.cols);
  detail::for_rows(ctx, y.rows, y.cols, [&](index_t i) {
    PESC_ASSERT(rows[i] >= 0 && rows[i] < x.rows);
    std::copy_n(x.row(rows[i]), y.cols, y.row(i));
  });
}

/// \brief y[i] = scale[i] * x[rows[i]].
template <Executor E, IsaPolicy I>
void gather_scaled_rows(context<E, I>& ctx, matrix_view<const float> x, vector_view<const std::int32_t> rows,
                        vector_view<const float> scale, matrix_view<float> y) {
  PESC_ASSERT(rows.size >= y.rows && scale.size >= y.rows && x.cols == y.cols);
  detail::for_rows_with_kernels(ctx, y.rows, y.cols, [&](auto kernels, index_t i) {
    PESC_ASSERT(rows[i] >= 0 && rows[i] < x.rows);
    decltype(kernels)::scaled(x.row(rows[i]), scale[i], y.row(i), y.cols);
  });
}

/// \brief y[t] = rho * h[t] + sum over the kept slots s of t of gate[s] * e[slot_of[s]].
///
/// rho is 1, or with `gate_sum` the sum of the gates of the kept slots. Slots are added in their order.
template <Executor E, IsaPolicy I>
void combine_rows(context<E, I>& ctx, matrix_view<const float> h, matrix_view<const float> e,
                  vector_view<const float> gate, const slot_groups<>& groups, bool gate_sum,
                  matrix_view<float> y) {
  PESC_ASSERT(h.rows == y.rows && h.cols == y.cols && groups.tokens == y.rows);
  detail::for_rows_with_kernels(ctx, y.rows, 4 * y.cols, [&](auto kernels, index_t t) {
    using kernel = decltype(kernels);
    const std::int32_t* first = groups.token_slots.data + groups.token_offsets[t];
    const std::int32_t* last = groups.token_slots.data + groups.token_offsets[t + 1];
    float rho = gate_sum ? 0.0f : 1.0f;
    if (gate_sum)
      for (const std::int32_t* s = first; s != last; ++s)
        if (groups.slot_of[*s] >= 0) rho += gate[*s];
    kernel::scaled(h.row(t), rho, y.row(t), y.cols);
    for (const std::int32_t* s = first; s != last; ++s) {
      const std::int32_t row = groups.slot_of[*s];
      if (row >= 0) kernel::add_scaled(e.row(row), gate[*s], y.row(t), y.cols);
    }
  });
}

/// \brief y[t] += sum over the kept slots s of t of rows[slot_of[s]], in the order of the slots.
template <Executor E, IsaPolicy I>
void sum_slots(context<E, I>& ctx, const slot_groups<>& groups, matrix_view<const float> rows,
               matrix_view<float> y) {
  PESC_ASSERT(groups.tokens == y.rows && rows.cols == y.cols);
  detail::for_rows_with_kernels(ctx, y.rows, 4 * y.cols, [&](auto kernels, index_t t) {
    for (std::int32_t n = groups.token_offsets[t]; n < groups.token_offsets[t + 1]; ++n) {
      const std::int32_t row = groups.slot_of[groups.token_slots[n]];
      if (row >= 0) decltype(kernels)::add_scaled(rows.row(row), 1.0f, y.row(t), y.cols);
    }
  });
}

/// \brief Adds choices, probabilities, rows and squared log-sum-exp of one layer to `sums`.
///
/// \param valid  [tokens], 0 for rows that do not count (padding); empty: all rows count
template <Executor E, IsaPolicy I>
void balance_accumulate(context<E, I>& ctx, matrix_view<const float> logits,
                        vector_view<const std::int32_t> token, vector_view<const std::int32_t> expert,
                        vector_view<const std::uint8_t> valid, balance_sums<> sums, workspace<>& ws) {
  const index_t experts = logits.cols;
  constexpr index_t grain = 256;
  const workspace<>::scope scope(ws);
  // Per chunk: probabilities of each expert, then the squared log-sum-exp and the rows.
  const matrix_view<double> parts = ws.take<double>(ceil_div(logits.rows, grain), experts + 2);
  if (ws.counting() || logits.rows == 0) return;
  ctx.executor().parallel_for(logits.rows, grain, [&](index_t begin, index_t end, int) {
    double* part = parts.row(begin / grain);
    std::fill_n(part, experts + 2, 0.0);
    for (index_t t = begin; t < end; ++t) {
      if (!valid.empty() && valid[t] == 0) continue;
      const detail::softmax_terms s = detail::softmax_of(logits.row(t), experts);
      for (index_t e = 0; e < experts; ++e) part[e] += static_cast<double>(s.probability(logits(t, e)));
      const double lse = static_cast<double>(s.lse());
      part[experts] += lse * lse;
      part[experts + 1] += 1.0;
    }
  });
  for (index_t c = 0; c < parts.rows; ++c) {
    for (index_t e = 0; e < experts; ++e) sums.probabilities[e] += parts(c, e);
    sums.totals[1] += parts(c, experts);
    sums.totals[0] += parts(c, experts + 1);
  }
  for (index_t s = 0; s < expert.size; ++s)
    if (expert[s] < experts && (valid.empty() || valid[token[s]] != 0)) sums.counts[expert[s]] += 1.0;
}

/// \brief load[e] += number of slots of expert e whose token counts; dropped slots count nowhere.
///
/// \param valid  [tokens], 0 for rows that do not count; empty: all rows count
template <Executor E, IsaPolicy I>
void expert_load(context<E, I>&, vector_view<const std::int32_t> token,
                 vector_view<const std::int32_t> expert, vector_view<const std::uint8_t> valid,
                 vector_view<std::int32_t> load) {
  for (index_t s = 0; s < expert.size; ++s)
    if (expert[s] < load.size && (valid.empty() || valid[token[s]] != 0)) ++load[expert[s]];
}

/// \brief fractions[e] = counts[e] / rows / divisor, 0 where no row was counted.
template <Executor E, IsaPolicy I>
void balance_fractions(context<E, I>&, const balance_sums<>& sums, double divisor,
                       vector_view<float> fractions) {
  const double rows = sums.totals[0];
  for (index_t e = 0; e < fractions.size; ++e)
    fractions[e] = rows > 0.0 ? static_cast<float>(sums.counts[e] / rows / divisor) : 0.0f;
}

/// \brief dlogits[t,e] += scale * p_e * (f_e - <f, p>) + z_scale * lse_t * p_e for the rows that count.
///
/// \param rows  [1] or empty: what both scales are divided by; nothing is added where it is 0
template <Executor E, IsaPolicy I>
void balance_backward(context<E, I>& ctx, matrix_view<const float> logits,
                      vector_view<const std::uint8_t> valid, vector_view<const float> f, float scale,
                      float z_scale, matrix_view<float> dlogits, vector_view<const double> rows = {}) {
  PESC_ASSERT(f.size == logits.cols && dlogits.rows == logits.rows && dlogits.cols == logits.cols);
  if (!rows.empty()) {
    if (rows[0] <= 0.0) return;
    scale = static_cast<float>(static_cast<double>(scale) / rows[0]);
    z_scale = static_cast<float>(static_cast<double>(z_scale) / rows[0]);
  }
  detail::for_rows(ctx, logits.rows, 8 * logits.cols, [&](index_t t) {
    if (!valid.empty() && valid[t] == 0) return;
    const detail::softmax_terms s = detail::softmax_of(logits.row(t), logits.cols);
    float mean = 0.0f;
    for (index_t e = 0; e < logits.cols; ++e) mean += f[e] * s.probability(logits(t, e));
    // A coefficient of zero must not meet an infinite log-sum-exp.
    const float z = z_scale == 0.0f ? 0.0f : z_scale * s.lse();
    for (index_t e = 0; e < logits.cols; ++e)
      dlogits(t, e) += s.probability(logits(t, e)) * (scale * (f[e] - mean) + z);
  });
}

PESC_CPU_INSTANCE(void top_k_softmax(context<>&, matrix_view<const float>, int, const gate_options&,
                                     vector_view<std::int32_t>, vector_view<float>))
PESC_CPU_INSTANCE(void top_k_softmax_backward(context<>&, matrix_view<const float>, int, const gate_options&,
                                              vector_view<const std::int32_t>, vector_view<const float>,
                                              vector_view<const float>, matrix_view<float>))
PESC_CPU_INSTANCE(void group_by_expert(context<>&, vector_view<const std::int32_t>,
                                       vector_view<const std::int32_t>, slot_groups<>, workspace<>&))
PESC_CPU_INSTANCE(void gather_rows(context<>&, matrix_view<const float>, vector_view<const std::int32_t>,
                                   matrix_view<float>))
PESC_CPU_INSTANCE(void gather_scaled_rows(context<>&, matrix_view<const float>,
                                          vector_view<const std::int32_t>, vector_view<const float>,
                                          matrix_view<float>))
PESC_CPU_INSTANCE(void combine_rows(context<>&, matrix_view<const float>, matrix_view<const float>,
                                    vector_view<const float>, const slot_groups<>&, bool, matrix_view<float>))
PESC_CPU_INSTANCE(void sum_slots(context<>&, const slot_groups<>&, matrix_view<const float>,
                                 matrix_view<float>))
PESC_CPU_INSTANCE(void balance_accumulate(context<>&, matrix_view<const float>,
                                          vector_view<const std::int32_t>, vector_view<const std::int32_t>,
                                          vector_view<const std::uint8_t>, balance_sums<>, workspace<>&))
PESC_CPU_INSTANCE(void expert_load(context<>&, vector_view<const std::int32_t>,
                                   vector_view<const std::int32_t>, vector_view<const std::uint8_t>,
                                   vector_view<std::int32_t>))
PESC_CPU_INSTANCE(void balance_fractions(context<>&, const balance_sums<>&, double, vector_view<float>))
PESC_CPU_INSTANCE(void balance_backward(context<>&, matrix_view<const float>, vector_view<const std::uint8_t>,
                                        vector_view<const float>, float, float, matrix_view<float>,
                                        vector_view<const double>))

}  // namespace PESC_CPU_ABI
}  // namespace pesc::cpu
