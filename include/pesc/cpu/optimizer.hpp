// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "pesc/core/views.hpp"
#include "pesc/cpu/context.hpp"
#include "pesc/cpu/detail/elementwise.hpp"
#include "pesc/nn/adamw.hpp"

namespace pesc::cpu {
inline namespace PESC_CPU_ABI {

/// \brief One AdamW update of parameters `p` with gradient `g` and moments `m`, `v`; all of one size.
///
/// \param squared_norm  [1] or empty. Where given, the gradient is also clipped to a norm of `max_norm`, and where it is
/// not finite nothing changes
/// \param max_norm  0: no clipping
template <Executor E, IsaPolicy I>
void adamw_step(context<E, I>& ctx, vector_view<float> p, vector_view<const float> g, vector_view<float> m,
                vector_view<float> v, adamw_coefficients c, vector_view<const double> squared_norm = {},
                double max_norm = 0.0) {
  PESC_ASSERT(p.size == g.size && p.size == m.size && p.size == v.size);
  if (!squared_norm.empty()) {
    if (!std::isfinite(squared_norm[0])) return;
    c.gradient_scale *= static_cast<float>(clip_factor(std::sqrt(squared_norm[0]), max_norm));
  }
  detail::with_elementwise(ctx.isa_policy(), [&](auto kernels) {
    ctx.executor().parallel_for(p.size, 8192, [&](index_t begin, index_t end, int) {
      decltype(kernels)::adamw(p.data + begin, g.data + begin, m.data + begin, v.data + begin, end - begin,
                               c);
    });
  });
}

PESC_CPU_INSTANCE(void adamw_step(context<>&, vector_view<float>, vector_view<const float>,
                                  vector_view<float>, vector_view<float>, adamw_coefficients,
                                  vector_view<const double>, double))

}  // namespace PESC_CPU_ABI
}  // namespace pesc::cpu
