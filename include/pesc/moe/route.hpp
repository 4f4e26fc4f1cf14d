// SPDX-License-Identifier: Apache-2.0
#pragma once

// Stage 1. Reads x [T, H] and the router weight [E, H]; writes logits [T, E] and the assignments (token, expert, gate) of
// at most max_slots(T) slots; keeps both. Backward reads the gradient of the gates and of the balance loss, adds to the
// router's gradients and to dx.

#include "pesc/core/extent.hpp"
#include "pesc/core/workspace.hpp"
#include "pesc/moe/shape.hpp"
#include "pesc/nn/parameters.hpp"

namespace pesc {

/// \brief What multiplies the shared output of a token: 1, or the sum of its gates where gates need not sum to 1.
enum class residual_kind { one, gate_sum };

/// \brief Logits and assignments; the part of a router's state that the later stages read.
template <class Space = host_space>
struct routing_state {
  matrix_view<float, Space> logits;         ///< [tokens, experts]
  vector_view<std::int32_t, Space> token;   ///< [slots]
  vector_view<std::int32_t, Space> expert;  ///< [slots]; equal to the number of experts: dropped
  vector_view<float, Space> gate;           ///< [slots]
  vector_view<std::int32_t, Space>
      choice;  ///< [slots], `expert` before slots were dropped; empty: none ever is

  /// \brief What balance losses count: the choices, dropped or not.
  [[nodiscard]] vector_view<const std::int32_t, Space> chosen() const {
    return choice.empty() ? expert : choice;
  }

  [[nodiscard]] index_t slots() const { return token.size; }

  [[nodiscard]] static routing_state carve(workspace<Space>& ws, index_t tokens, index_t experts,
                                           index_t slots) {
    return {ws.template take<float>(tokens, experts),
            ws.template take<std::int32_t>(slots),
            ws.template take<std::int32_t>(slots),
            ws.template take<float>(slots),
            {}};
  }
};

/// \brief The trainable weight of a router without further parameters.
template <class Space = host_space>
struct router_parameters {
  matrix_view<float, Space> weight;  ///< [experts, hidden]

  [[nodiscard]] static router_parameters carve(parameter_arena<Space>& arena, const moe_shape& shape) {
    return {arena.take(shape.experts, shape.hidden)};
  }

  template <class F>
  void for_each(F&& f) const {
    f(std::string("router"), as_batch(weight));
  }

  void initialize(const random_stream& stream) const { fill_uniform(as_batch(weight), weight.cols, stream); }
};

/// \brief A rule that assigns tokens to experts.
///
/// A type with `top_k` (or `dynamic`), `residual`, a constructor from `moe_shape`, `max_slots(tokens)`, the member
/// templates `parameters<Space>` (carve, for_each, initialize) and `state<Space>` (derived from `routing_state`; carve),
/// and the free functions `route_forward` and `route_backward`, found by argument-dependent lookup.
template <class R>
concept Router = std::constructible_from<R, const moe_shape&> && requires(const R& router, index_t tokens) {
  { R::top_k } -> std::convertible_to<int>;
  { R::residual } -> std::convertible_to<residual_kind>;
  { router.max_slots(tokens) } -> std::convertible_to<index_t>;
  typename R::template parameters<host_space>;
  typename R::template state<host_space>;
};

/// \brief Keeps the k largest logits of a token; ties go to the lower expert.
///
/// \tparam K  experts per token, at most 16; `dynamic`: from the shape
/// \tparam Order  softmax over the kept logits (Camelidae, Mixtral) or over all (Switch, OLMoE, Qwen)
/// \tparam Renormalize  softmax over all only: divide the kept probabilities by their sum
template <int K, gate_order Order = gate_order::softmax_after_top_k, bool Renormalize = true>
struct top_k_router {
  static_assert(K == dynamic || (K >= 1 && K <= max_top_k), "pesc: top_k_router keeps 1 to 16 experts");

  static constexpr int top_k = K;
  static constexpr gate_options gates{Order, Renormalize};
  static constexpr residual_kind residual =
      Order == gate_order::softmax_after_top_k || Renormalize ? residual_kind::one : residual_kind::gate_sum;

  template <class Space>
  using parameters = router_parameters<Space>;

  template <class Space>
  struct state : routing_state<Space> {
    [[nodiscard]] static state carve(const top_k_router& router, workspace<Space>& ws, const moe_shape& shape,
                                     index_t tokens) {
      return {routing_state<Space>::carve(ws, tokens, shape.experts, router.max_slots(tokens))};
    }
  };

  explicit top_k_router(const moe_shape& shape) : k{shape.top_k} {}

  [[nodiscard]] index_t max_slots(index_t tokens) const { return tokens * k.value(); }

  [[no_unique_address]] extent<K> k;
};

static_assert(Router<top_k_router<2>>);
static_assert(Router<top_k_router<dynamic>>);

/// \brief logits = x Wrᵀ, then the k best experts of each token and their gates.
template <class X, int K, gate_order Order, bool Renormalize, class Space>
void route_forward(X& ctx, const top_k_router<K, Order, Renormalize>& router,
                   matrix_view<const float, Space> x, const router_parameters<Space>& p,
                   const routing_state<Space>& state, const moe_run&, workspace<Space>& ws) {
  matmul(ctx, x, as_const(p.weight), state.logits, {.transpose_b = true}, ws);
  if (ws.counting()) return;
  const int k = static_cast<int>(router.k.value());
  top_k_softmax(ctx, as_const(state.logits), k, router.gates, state.expert, state.gate);
  number_slots(ctx, k, state.token);
}

/// \brief Adds the router's part to `dx` and to the gradient of its weight.
///
/// \param dgate  [slots], gradient of the gates
template <class X, int K, gate_order Order, bool Renormalize, class Space>
void route_backward(X& ctx, const top_k_router<K, Order, Renormalize>& router,
                    matrix_view<const float, Space> x, const router_parameters<Space>& p,
                    const routing_state<Space>& state, vector_view<const float, Space> dgate,
                    const balance_gradient<Space>& balance, matrix_view<float, Space> dx,
                    const router_parameters<Space>& gradient, const moe_run&, workspace<Space>& ws) {
  const typename workspace<Space>::scope scratch(ws);
  auto dlogits = ws.template take<float>(state.logits.rows, state.logits.cols);
  if (!ws.counting()) {
    fill(ctx, dlogits, 0.0f);
    top_k_softmax_backward(ctx, as_const(state.logits), static_cast<int>(router.k.value()), router.gates,
                           as_const(state.expert), as_const(state.gate), dgate, dlogits);
    if (balance.active())
      balance_backward(ctx, as_const(state.logits), balance.valid, balance.fractions, balance.scale,
                       balance.z_scale, dlogits, balance.rows);
  }
  matmul(ctx, as_const(dlogits), x, gradient.weight, {.transpose_a = true, .accumulate = true}, ws);
  matmul(ctx, as_const(dlogits), as_const(p.weight), dx, {.accumulate = true}, ws);
}

}  // namespace pesc
