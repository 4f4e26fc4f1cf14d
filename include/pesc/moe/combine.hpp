// SPDX-License-Identifier: Apache-2.0
#pragma once

// Stage 5. Reads h [T, H], e [N, H], the gates and the groups; writes y [T, H] = rho h + sum of gate · e, where rho is 1 or
// the sum of a token's gates; keeps nothing. Backward reads dy, adds rho dy to dh and adds the part of rho to the
// gradient of the gates.

#include "pesc/moe/route.hpp"

namespace pesc {

/// \brief y = rho h + Σ gate · e, gathered in slot order.
template <class X, class Space>
void combine(X& ctx, matrix_view<const float, Space> h, matrix_view<const float, Space> e,
             const routing_state<Space>& routing, const slot_groups<Space>& groups, residual_kind residual,
             matrix_view<float, Space> y) {
  combine_rows(ctx, h, e, as_const(routing.gate), groups, residual == residual_kind::gate_sum, y);
}

/// \brief dh += rho dy; where rho is the sum of gates, each kept slot's `dgate` grows by ⟨dy, h⟩ of its token.
template <class X, class Space>
void combine_backward(X& ctx, matrix_view<const float, Space> dy, matrix_view<const float, Space> h,
                      const routing_state<Space>& routing, const slot_groups<Space>& groups,
                      residual_kind residual, matrix_view<float, Space> dh, vector_view<float, Space> dgate) {
  combine_rows_backward(ctx, dy, h, as_const(routing.gate), groups, residual == residual_kind::gate_sum, dh,
                        dgate);
}

}  // namespace pesc
