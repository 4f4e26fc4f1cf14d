// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/core/workspace.hpp"
#include "pesc/gpu/detail/routing_kernels.cuh"
#include "pesc/gpu/noisy_gate.cuh"
#include "pesc/gpu/reduce.cuh"
#include "pesc/gpu/switch_gate.cuh"

namespace pesc::gpu {
namespace detail {

/// \brief Whether the softmax of the gates runs over all experts.
[[nodiscard]] inline bool over_all(const gate_options& options) {
  return options.order == gate_order::softmax_before_top_k && !options.renormalize;
}

}  // namespace detail

/// \brief Chooses the k experts with the largest logits of every row and their gates.
///
/// Slot t * k + j holds the j-th best expert of token t. Ties go to the lower index; NaN counts as -infinity;
/// a row of -infinity takes experts 0 to k - 1 with equal gates. 1 <= k <= min(experts, max_top_k).
template <class Lazy = void>
void top_k_softmax(context& ctx, matrix_view<const float, device_space> logits, int k,
                   const gate_options& options, vector_view<std::int32_t, device_space> expert,
                   vector_view<float, device_space> gate) {
  PESC_ASSERT(k >= 1 && k <= max_top_k && k <= logits.cols);
  PESC_ASSERT(expert.size >= logits.rows * k && gate.size >= logits.rows * k);
  detail::with_expert_team(logits.cols, [&](auto threads) {
    launch(ctx, "top_k_softmax_kernel", detail::top_k_softmax_kernel<threads()>,
           detail::team_shape(logits.rows, threads), logits, k, detail::over_all(options), expert.data,
           gate.data);
  });
}

/// \brief dlogits += gradient of `top_k_softmax`.
///
/// Without renormalisation the softmax over all experts passes a gradient to the unselected ones too.
template <class Lazy = void>
void top_k_softmax_backward(context& ctx, matrix_view<const float, device_space> logits, int k,
                            const gate_options& options, vector_view<const std::int32_t, device_space> expert,
                            vector_view<const float, device_space> gate,
                            vector_view<const float, device_space> dgate,
                            matrix_view<float, device_space> dlogits) {
  detail::with_expert_team(logits.cols, [&](auto threads) {
    launch(ctx, "top_k_softmax_backward_kernel", detail::top_k_softmax_backward_kernel<threads()>,
           detail::team_shape(logits.rows, threads), logits, k, detail::over_all(options), expert.data,
           gate.data, dgate.data, dlogits);
  });
}

/// \brief Orders slots by expert and by token; fills every array of `groups` from its `experts` and `tokens`.
///
/// An expert index of `groups.experts` marks a dropped slot: its `slot_of` is -1, and it stands behind the
/// grouped rows in `slots` and `token_of`, so that every entry there names a valid slot and token.
template <class Lazy = void>
void group_by_expert(context& ctx, vector_view<const std::int32_t, device_space> token,
                     vector_view<const std::int32_t, device_space> expert, slot_groups<device_space> groups,
                     workspace<device_space>& ws) {
  const workspace<device_space>::scope scope(ws);
  const index_t slots = expert.size;
  const auto scratch = ws.take<std::int32_t>(2 * slots);
  if (ws.counting()) return;
  PESC_ASSERT(token.size == slots && groups.slots.size >= slots);
  PESC_ASSERT(groups.expert_offsets.size == groups.experts + 1 &&
              groups.token_offsets.size == groups.tokens + 1);
  const auto bytes_of = [](index_t largest) {
    int bytes = 1;
    while (largest >> 8 * bytes != 0) ++bytes;
    return bytes;
  };
  constexpr int threads = 1024;
  const detail::sort_task by_expert{expert.data, slots, bytes_of(groups.experts), groups.slots.data,
                                    scratch.data};
  const detail::sort_task by_token{token.data, slots, bytes_of(groups.tokens), groups.token_slots.data,
                                   scratch.data + slots};
  launch(ctx, "sort_slots_kernel", detail::sort_slots_kernel<threads>, grid_1d(2 * threads, threads),
         by_expert, by_token);
  const index_t entries = std::max({slots, groups.experts + 1, groups.tokens + 1});
  launch(ctx, "group_by_expert_kernel", detail::group_by_expert_kernel<256>, grid_1d(entries, 256), token,
         expert, groups);
}

namespace detail {

template <class Lazy = void>
void gather(context& ctx, device_matrix<const float> x, const std::int32_t* rows, const float* scale,
            device_matrix<float> y) {
  with_width<4>(
      [&](auto width) {
        launch(ctx, "gather_rows_kernel", gather_rows_kernel<width()>, map_shape(y.rows, y.cols / width()), x,
               rows, scale, y);
      },
      x, y);
}

}  // namespace detail

/// \brief y[i] = x[rows[i]].
template <class Lazy = void>
void gather_rows(context& ctx, matrix_view<const float, device_space> x,
                 vector_view<const std::int32_t, device_space> rows, matrix_view<float, device_space> y) {
  PESC_ASSERT(rows.size >= y.rows && x.cols == y.cols);
  detail::gather(ctx, x, rows.data, nullptr, y);
}

/// \brief y[i] = scale[i] * x[rows[i]].
template <class Lazy = void>
void gather_scaled_rows(context& ctx, matrix_view<const float, device_space> x,
                        vector_view<const std::int32_t, device_space> rows,
                        vector_view<const float, device_space> scale, matrix_view<float, device_space> y) {
  PESC_ASSERT(rows.size >= y.rows && scale.size >= y.rows && x.cols == y.cols);
  detail::gather(ctx, x, rows.data, scale.data, y);
}

/// \brief y[t] = rho * h[t] + sum over the kept slots s of t of gate[s] * e[slot_of[s]].
///
/// rho is 1, or with `gate_sum` the sum of the gates of the kept slots. Slots are added in their order.
template <class Lazy = void>
void combine_rows(context& ctx, matrix_view<const float, device_space> h,
                  matrix_view<const float, device_space> e, vector_view<const float, device_space> gate,
                  const slot_groups<device_space>& groups, bool gate_sum,
                  matrix_view<float, device_space> y) {
  PESC_ASSERT(h.rows == y.rows && h.cols == y.cols && groups.tokens == y.rows);
  detail::with_width<4>(
      [&](auto width) {
        launch(ctx, "combine_rows_kernel", detail::combine_rows_kernel<width()>,
               detail::map_shape(y.rows, y.cols / width()), h, e, gate.data, groups, gate_sum, y);
      },
      h, e, y);
}

/// \brief y[t] += sum over the kept slots s of t of rows[slot_of[s]], in the order of the slots.
template <class Lazy = void>
void sum_slots(context& ctx, const slot_groups<device_space>& groups,
               matrix_view<const float, device_space> rows, matrix_view<float, device_space> y) {
  PESC_ASSERT(groups.tokens == y.rows && rows.cols == y.cols);
  detail::with_width<4>(
      [&](auto width) {
        launch(ctx, "sum_slots_kernel", detail::sum_slots_kernel<width()>,
               detail::map_shape(y.rows, y.cols / width()), groups, rows, y);
      },
      rows, y);
}

/// \brief load[e] += number of slots of expert e whose token counts; dropped slots count nowhere.
///
/// \param valid  [tokens], 0 for rows that do not count; empty: all rows count
template <class Lazy = void>
void expert_load(context& ctx, vector_view<const std::int32_t, device_space> token,
                 vector_view<const std::int32_t, device_space> expert,
                 vector_view<const std::uint8_t, device_space> valid,
                 vector_view<std::int32_t, device_space> load) {
  constexpr int threads = detail::part_threads;
  launch(ctx, "expert_load_kernel", detail::expert_load_kernel<threads>,
         grid_1d(load.size * threads, threads), token, expert, valid, load.data);
}

/// \brief Adds choices, probabilities, rows and squared log-sum-exp of one layer to `sums`.
///
/// \param valid  [tokens], 0 for rows that do not count (padding); empty: all rows count
template <class Lazy = void>
void balance_accumulate(context& ctx, matrix_view<const float, device_space> logits,
                        vector_view<const std::int32_t, device_space> token,
                        vector_view<const std::int32_t, device_space> expert,
                        vector_view<const std::uint8_t, device_space> valid, balance_sums<device_space> sums,
                        workspace<device_space>& ws) {
  constexpr int threads = detail::part_threads;
  const index_t experts = logits.cols;
  const workspace<device_space>::scope scope(ws);
  const auto parts = ws.take<double>(ceil_div(logits.rows, detail::part_rows), experts + 2);
  if (ws.counting() || logits.rows == 0) return;
  detail::with_expert_team(experts, [&](auto team) {
    launch(ctx, "balance_accumulate_kernel", detail::balance_accumulate_kernel<team()>,
           grid_1d(parts.rows * threads, threads), logits, valid, parts);
  });
  launch(ctx, "balance_sums_kernel", detail::balance_sums_kernel<threads>,
         grid_1d((experts + 1) * threads, threads), parts, token, expert, valid, sums);
}

/// \brief fractions[e] = counts[e] / rows / divisor, 0 where no row was counted.
template <class Lazy = void>
void balance_fractions(context& ctx, const balance_sums<device_space>& sums, double divisor,
                       vector_view<float, device_space> fractions) {
  launch(ctx, "balance_fractions_kernel", detail::balance_fractions_kernel<256>, grid_1d(fractions.size, 256),
         sums, divisor, fractions);
}

/// \brief dlogits[t,e] += scale * p_e * (f_e - <f, p>) + z_scale * lse_t * p_e for the rows that count.
///
/// \param rows  [1] or empty: what both scales are divided by; nothing is added where it is 0
template <class Lazy = void>
void balance_backward(context& ctx, matrix_view<const float, device_space> logits,
                      vector_view<const std::uint8_t, device_space> valid,
                      vector_view<const float, device_space> f, float scale, float z_scale,
                      matrix_view<float, device_space> dlogits,
                      vector_view<const double, device_space> rows = {}) {
  PESC_ASSERT(f.size == logits.cols && dlogits.rows == logits.rows && dlogits.cols == logits.cols);
  detail::with_expert_team(logits.cols, [&](auto threads) {
    launch(ctx, "balance_backward_kernel", detail::balance_backward_kernel<threads()>,
           detail::team_shape(logits.rows, threads), logits, valid, f.data, scale, z_scale, dlogits,
           rows.empty() ? nullptr : rows.data);
  });
}

}  // namespace pesc::gpu
