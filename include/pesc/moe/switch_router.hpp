// SPDX-License-Identifier: Apache-2.0
#pragma once

// A router that drops tokens. Each token goes to its best expert, and an expert takes only so many of a
// group, in the order of the tokens: Fedus, Zoph, Shazeer, "Switch transformers" (2021). A dropped token
// keeps its shared output.

#include <cmath>

#include "pesc/moe/route.hpp"

namespace pesc {

/// \brief One expert per token with a capacity; the gate is the probability among all experts.
///
/// Derive from it to change the numbers: the constructor of the derived type sets them.
struct switch_router {
  static constexpr int top_k = 1;
  static constexpr residual_kind residual = residual_kind::one;

  template <class Space>
  using parameters = router_parameters<Space>;

  /// \brief Choices before dropping are kept in `choice`, since balance losses count those.
  template <class Space>
  struct state : routing_state<Space> {
    vector_view<std::int32_t, Space> group_offsets;  ///< [groups + 1], first token of each

    [[nodiscard]] static state carve(const switch_router& router, workspace<Space>& ws,
                                     const moe_shape& shape, index_t tokens) {
      state s;
      static_cast<routing_state<Space>&>(s) = routing_state<Space>::carve(ws, tokens, shape.experts, tokens);
      s.choice = ws.template take<std::int32_t>(tokens);
      s.group_offsets = ws.template take<std::int32_t>(ceil_div(tokens, router.group_of(tokens)) + 1);
      return s;
    }
  };

  explicit switch_router(const moe_shape& shape) : experts{shape.experts} {}

  [[nodiscard]] static index_t max_slots(index_t tokens) { return tokens; }

  /// \brief Tokens that share the capacity of an expert, in a call with `tokens`.
  [[nodiscard]] index_t group_of(index_t tokens) const {
    return group > 0 ? group : std::max<index_t>(tokens, 1);
  }

  /// \brief Tokens of a group that an expert takes.
  [[nodiscard]] index_t capacity_of(index_t tokens) const {
    if (capacity > 0) return capacity;
    const double balanced = static_cast<double>(group_of(tokens)) / static_cast<double>(experts);
    return std::max<index_t>(
        1, static_cast<index_t>(std::ceil(static_cast<double>(capacity_factor) * balanced)));
  }

  index_t experts = 0;
  float capacity_factor = 1.25f;  ///< capacity over the tokens that an expert gets at perfect balance
  index_t capacity = 0;           ///< tokens per expert and group; 0: from the factor
  index_t group = 0;              ///< tokens that share a capacity, such as a sequence; 0: all of a call
};

static_assert(Router<switch_router>);

/// \brief logits = x Wrᵀ, then the best expert of each token that still has room.
template <class X, class Space>
void route_forward(X& ctx, const switch_router& router, matrix_view<const float, Space> x,
                   const router_parameters<Space>& p, const switch_router::state<Space>& state,
                   const moe_run&, workspace<Space>& ws) {
  matmul(ctx, x, as_const(p.weight), state.logits, {.transpose_b = true}, ws);
  if (!ws.counting()) {
    number_slots(ctx, 1, state.token);
    number_groups(ctx, router.group_of(x.rows), x.rows, state.group_offsets);
  }
  switch_assign(ctx, as_const(state.logits), as_const(state.group_offsets), router.capacity_of(x.rows),
                state.expert, state.gate, state.choice, ws);
}

/// \brief Adds the router's part to `dx` and to the gradient of its weight; dropped tokens have no part but
/// in the losses.
///
/// \param dgate  [slots], gradient of the gates
template <class X, class Space>
void route_backward(X& ctx, const switch_router&, matrix_view<const float, Space> x,
                    const router_parameters<Space>& p, const switch_router::state<Space>& state,
                    vector_view<const float, Space> dgate, const balance_gradient<Space>& balance,
                    matrix_view<float, Space> dx, const router_parameters<Space>& gradient, const moe_run&,
                    workspace<Space>& ws) {
  const typename workspace<Space>::scope scratch(ws);
  auto dlogits = ws.template take<float>(state.logits.rows, state.logits.cols);
  if (!ws.counting()) {
    fill(ctx, dlogits, 0.0f);
    switch_backward(ctx, as_const(state.logits), as_const(state.expert), dgate, dlogits);
    if (balance.active())
      balance_backward(ctx, as_const(state.logits), balance.valid, balance.fractions, balance.scale,
                       balance.z_scale, dlogits, balance.rows);
  }
  matmul(ctx, as_const(dlogits), x, gradient.weight, {.transpose_a = true, .accumulate = true}, ws);
  matmul(ctx, as_const(dlogits), as_const(p.weight), dx, {.accumulate = true}, ws);
}

}  // namespace pesc
