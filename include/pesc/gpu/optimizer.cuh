// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/gpu/detail/optimizer_kernels.cuh"
#include "pesc/gpu/elementwise.cuh"

namespace pesc::gpu {

/// \brief One AdamW update of parameters `p` with gradient `g` and moments `m`, `v`; all of one size.
///
/// Coefficients come from the step values where the context has them. One launch for an arena of any size.
/// \param squared_norm  [1] or empty. Where given, the gradient is also clipped to a norm of `max_norm`, and where it is
/// not finite nothing changes
/// \param max_norm  0: no clipping
template <class Lazy = void>
void adamw_step(context& ctx, vector_view<float, device_space> p, vector_view<const float, device_space> g,
                vector_view<float, device_space> m, vector_view<float, device_space> v,
                const adamw_coefficients& c, vector_view<const double, device_space> squared_norm = {},
                double max_norm = 0.0) {
  PESC_ASSERT(p.size == g.size && p.size == m.size && p.size == v.size);
  constexpr int threads = 256;
  const index_t whole = p.size / 4 * 4;
  detail::with_width<4>(
      [&](auto width) {
        // No more blocks than are resident at once, so that what a block prepares serves many packs.
        const index_t blocks =
            std::min<index_t>(ceil_div(ceil_div(p.size, width()), threads), 8 * ctx.limits().multiprocessors);
        launch(ctx, "adamw_step_kernel", detail::adamw_step_kernel<threads, width()>,
               grid_1d(blocks * threads, threads), p, g.data, m.data, v.data, c, ctx.values(),
               squared_norm.data, max_norm);
      },
      p.part(0, whole), g.part(0, whole), m.part(0, whole), v.part(0, whole));
}

}  // namespace pesc::gpu
