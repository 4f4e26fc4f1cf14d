// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/core/views.hpp"
#include "pesc/cpu/context.hpp"
#include "pesc/cpu/detail/elementwise.hpp"
#include "pesc/nn/adamw.hpp"

namespace pesc::cpu {
inline namespace PESC_CPU_ABI {

/// \brief One AdamW update of parameters `p` with gradient `g` and moments `m`, `v`; all of one size.
template <Executor E, IsaPolicy I>
void adamw_step(context<E, I>& ctx, vector_view<float> p, vector_view<const float> g, vector_view<float> m,
                vector_view<float> v, const adamw_coefficients& c) {
  PESC_ASSERT(p.size == g.size && p.size == m.size && p.size == v.size);
  detail::with_elementwise(ctx.isa_policy(), [&](auto kernels) {
    ctx.executor().parallel_for(p.size, 8192, [&](index_t begin, index_t end, int) {
      decltype(kernels)::adamw(p.data + begin, g.data + begin, m.data + begin, v.data + begin, end - begin,
                               c);
    });
  });
}

}  // namespace PESC_CPU_ABI
}  // namespace pesc::cpu
