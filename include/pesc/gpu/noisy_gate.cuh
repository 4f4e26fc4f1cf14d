// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/core/workspace.hpp"
#include "pesc/gpu/detail/noisy_gate_kernels.cuh"
#include "pesc/gpu/reduce.cuh"

// Noisy top-k gating: Shazeer et al., "Outrageously large neural networks" (2017). With noise n ~ N(0, 1),
// noisy = clean + n * sigma, sigma = softplus(raw) + epsilon, the k largest noisy logits choose, and the load
// of an expert is the probability, over a new draw of its own noise, that it is among them, summed over rows.

namespace pesc::gpu {

/// \brief y(i, j) = a normal number that depends on the stream, i and j alone.
template <class Lazy = void>
void fill_normal(context& ctx, const random_stream& s, matrix_view<float, device_space> y) {
  detail::with_width<4>(
      [&](auto width) {
        launch(ctx, "fill_normal_kernel", detail::fill_normal_kernel<width()>,
               detail::map_shape(y.rows, ceil_div(y.cols, 4)), s, ctx.values(), y);
      },
      y);
}

/// \brief noisy = clean + noise * (softplus(raw) + epsilon).
template <class Lazy = void>
void noisy_logits(context& ctx, matrix_view<const float, device_space> clean,
                  matrix_view<const float, device_space> raw, matrix_view<const float, device_space> noise,
                  float epsilon, matrix_view<float, device_space> noisy) {
  launch(ctx, "noisy_logits_kernel", detail::noisy_logits_kernel<256>, grid_1d(clean.size(), 256), clean, raw,
         noise, epsilon, noisy);
}

/// \brief dclean += dnoisy; draw += dnoisy * noise * sigmoid(raw).
template <class Lazy = void>
void noisy_logits_backward(context& ctx, matrix_view<const float, device_space> raw,
                           matrix_view<const float, device_space> noise,
                           matrix_view<const float, device_space> dnoisy,
                           matrix_view<float, device_space> dclean, matrix_view<float, device_space> draw) {
  launch(ctx, "noisy_logits_backward_kernel", detail::noisy_logits_backward_kernel<256>,
         grid_1d(raw.size(), 256), raw, noise, dnoisy, dclean, draw);
}

/// \brief load[e] += estimated number of rows that choose expert e.
template <class Lazy = void>
void noisy_load(context& ctx, const noisy_load_inputs<device_space>& in,
                vector_view<double, device_space> load, workspace<device_space>& ws) {
  constexpr int threads = detail::part_threads;
  const index_t experts = in.clean.cols;
  const workspace<device_space>::scope scope(ws);
  const auto parts = ws.take<double>(ceil_div(in.clean.rows, detail::part_rows), experts);
  if (ws.counting() || in.clean.rows == 0) return;
  PESC_ASSERT(in.k >= 1 && in.k < max_top_k && in.k < experts && load.size == experts);
  detail::with_expert_team(experts, [&](auto team) {
    launch(ctx, "noisy_load_kernel", detail::noisy_load_kernel<team()>,
           grid_1d(parts.rows * threads, threads), in, parts);
  });
  launch(ctx, "noisy_load_sums_kernel", detail::noisy_load_sums_kernel<threads>,
         grid_1d(experts * threads, threads), parts, load.data);
}

/// \brief Adds the gradient of `noisy_load`, given that of the loads, to those of its inputs.
///
/// Thresholds are noisy logits, so that part goes to `dnoisy`; run `noisy_logits_backward` after it.
template <class Lazy = void>
void noisy_load_backward(context& ctx, const noisy_load_inputs<device_space>& in,
                         vector_view<const float, device_space> dload,
                         matrix_view<float, device_space> dclean, matrix_view<float, device_space> draw,
                         matrix_view<float, device_space> dnoisy) {
  detail::with_expert_team(in.clean.cols, [&](auto threads) {
    launch(ctx, "noisy_load_backward_kernel", detail::noisy_load_backward_kernel<threads()>,
           detail::team_shape(in.clean.rows, threads), in, dload.data, dclean, draw, dnoisy);
  });
}

/// \brief counted[s] = expert[s] where the token of slot s counts, else `experts`, which marks a dropped
/// slot.
template <class Lazy = void>
void mask_slots(context& ctx, vector_view<const std::int32_t, device_space> token,
                vector_view<const std::int32_t, device_space> expert,
                vector_view<const std::uint8_t, device_space> valid, index_t experts,
                vector_view<std::int32_t, device_space> counted) {
  launch(ctx, "mask_slots_kernel", detail::mask_slots_kernel<256>, grid_1d(expert.size, 256), token.data,
         expert, valid.data, static_cast<std::int32_t>(experts), counted.data);
}

/// \brief importance[e] += gates of expert e; load[e] += slots of expert e with a positive gate. Dropped
/// slots are skipped.
template <class Lazy = void>
void gate_totals(context& ctx, vector_view<const std::int32_t, device_space> expert,
                 vector_view<const float, device_space> gate, vector_view<double, device_space> importance,
                 vector_view<double, device_space> load) {
  PESC_ASSERT(expert.size == gate.size && importance.size == load.size);
  launch(ctx, "gate_totals_kernel", detail::gate_totals_kernel<256>, grid_1d(importance.size * 256, 256),
         expert, gate.data, importance.data, load.data);
}

/// \brief out[0] = squared coefficient of variation: unbiased variance over squared mean; 0 for one expert.
template <class Lazy = void>
void cv_squared(context& ctx, vector_view<const double, device_space> v,
                vector_view<double, device_space> out) {
  launch(ctx, "cv_squared_kernel", detail::cv_squared_kernel<256>, grid_1d(256, 256), v, out.data);
}

/// \brief dv = scale * gradient of `cv_squared`.
template <class Lazy = void>
void cv_squared_gradient(context& ctx, vector_view<const double, device_space> v, double scale,
                         vector_view<float, device_space> dv) {
  PESC_ASSERT(v.size == dv.size);
  launch(ctx, "cv_squared_gradient_kernel", detail::cv_squared_gradient_kernel<256>, grid_1d(256, 256), v,
         scale, dv.data);
}

/// \brief dgate[s] += dimportance[expert[s]] for the slots that are not dropped.
template <class Lazy = void>
void importance_backward(context& ctx, vector_view<const std::int32_t, device_space> expert,
                         vector_view<const float, device_space> dimportance,
                         vector_view<float, device_space> dgate) {
  launch(ctx, "importance_backward_kernel", detail::importance_backward_kernel<256>,
         grid_1d(expert.size, 256), expert, dimportance, dgate.data);
}

}  // namespace pesc::gpu
