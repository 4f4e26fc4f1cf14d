// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "pesc/core/views.hpp"
#include "pesc/cpu/context.hpp"
#include "pesc/nn/adamw.hpp"

namespace pesc::cpu {
inline namespace PESC_CPU_ABI {

/// \brief One AdamW update of parameters `p` with gradient `g` and moments `m`, `v`; all of one size.
template <Executor E, IsaPolicy I>
void adamw_step(context<E, I>& ctx, vector_view<float> p, vector_view<const float> g, vector_view<float> m,
                vector_view<float> v, const adamw_coefficients& c) {
  PESC_ASSERT(p.size == g.size && p.size == m.size && p.size == v.size);
  ctx.executor().parallel_for(p.size, 8192, [&](index_t begin, index_t end, int) {
    for (index_t i = begin; i < end; ++i) {
      const float gradient = g[i] * c.gradient_scale;
      m[i] = c.beta1 * m[i] + (1.0f - c.beta1) * gradient;
      v[i] = c.beta2 * v[i] + (1.0f - c.beta2) * gradient * gradient;
      p[i] = p[i] * c.decay - c.step_size * m[i] / (std::sqrt(v[i]) / c.root_correction + c.epsilon);
    }
  });
}

}  // namespace PESC_CPU_ABI
}  // namespace pesc::cpu
