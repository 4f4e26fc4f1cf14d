// SPDX-License-Identifier: Apache-2.0
#pragma once

// Routers as a layer calls them. Logits that a file gives directly go through an identity weight, which
// leaves every bit of them that products have.

#include "on_backend.hpp"
#include "pesc/moe/route.hpp"

namespace golden {

using pesc::as_const;
using pesc::gate_order;

/// \brief Input and weight of a router and the sizes that follow.
struct router_input {
  std::vector<float> x;
  std::vector<float> weight;
  index_t tokens = 0;
  index_t hidden = 0;
  pesc::moe_shape shape;  ///< hidden, experts, top_k

  router_input(const golden_case& c, const char* weight_name);
};

struct router_result {
  std::vector<float> logits, gates, dx, dweight;
  std::vector<std::int64_t> experts;
};

/// \brief The largest magnitude.
[[nodiscard]] double largest(const std::vector<float>& values);

/// \brief The gradient of the gates that the case gives.
[[nodiscard]] std::vector<float> upstream_gates(const golden_case& c, const router_input& in);

/// \brief Forward and backward of a router without own parameters.
///
/// \param low  logits are rounded to bfloat16, as a router that computes in it has them
template <class X, class Router>
[[nodiscard]] router_result run_router(X& ctx, const Router& router, const router_input& in,
                                       const std::vector<float>& dgates, bool low = false) {
  using space = typename X::memory_space;
  const index_t experts = in.shape.experts;
  placed x(ctx, in.x), weight(ctx, in.weight), upstream(ctx, dgates);
  placed<X, float> dx(ctx, in.tokens * in.hidden), dweight(ctx, experts * in.hidden);
  const auto input = as_const(x.matrix(in.tokens, in.hidden));
  const pesc::router_parameters<space> p{weight.matrix(experts, in.hidden)};
  const pesc::router_parameters<space> gradient{dweight.matrix(experts, in.hidden)};
  router_result r;
  with_workspace(ctx, [&](pesc::workspace<space>& ws) {
    const auto state = Router::template state<space>::carve(router, ws, in.shape, in.tokens);
    route_forward(ctx, router, input, p, state, pesc::moe_run{}, ws);
    if constexpr (requires { Router::gates; })
      if (low && !ws.counting()) {
        std::vector<float> logits = values_of(ctx, state.logits);
        for (float& v : logits) v = pesc::to_float(pesc::to_bf16(v));
        assign(ctx, state.logits, logits);
        top_k_softmax(ctx, as_const(state.logits), static_cast<int>(router.k.value()), Router::gates,
                      state.expert, state.gate);
      }
    route_backward(ctx, router, input, p, state, as_const(upstream.list()), {},
                   dx.matrix(in.tokens, in.hidden), gradient, pesc::moe_run{}, ws);
    if (ws.counting()) return;
    r.logits = values_of(ctx, state.logits);
    r.gates = values_of(ctx, state.gate);
    const std::vector<std::int32_t> chosen = values_of(ctx, state.expert);
    r.experts.assign(chosen.begin(), chosen.end());
  });
  r.dx = dx.values();
  r.dweight = dweight.values();
  return r;
}

/// \param single  tolerance in float
/// \param upstream  the largest gradient of a gate
void compare_router(const golden_case& c, outcome& out, router_result r, const std::string& where,
                    double single, double upstream);

/// \brief Calls `f` with each rule, an order and whether gates are renormalised, that gives the case's gates.
template <class F>
void for_each_gate_rule(const golden_case& c, F&& f) {
  constexpr auto before = gate_order::softmax_before_top_k;
  if (c.text("kind") == "router_mixtral") {
    f.template operator()<before, true>();
    f.template operator()<gate_order::softmax_after_top_k, true>();
  } else if (c.flag("norm_topk_prob")) {
    f.template operator()<before, true>();
  } else {
    f.template operator()<before, false>();
  }
}

/// \brief Kinds router_mixtral, router_qwen2_moe and router_olmoe on a backend.
template <gate_order Order, bool Renormalize, class X>
router_result compare_top_k(X& ctx, const golden_case& c, outcome& out, const router_input& in,
                            const std::vector<float>& dgates, const std::string& where) {
  using router = pesc::top_k_router<pesc::dynamic, Order, Renormalize>;
  router_result r = run_router(ctx, router(in.shape), in, dgates, c.text("dtype") == "bfloat16");
  compare_router(c, out, r, where, product_tolerance<X>(1e-6), largest(dgates));
  return r;
}

}  // namespace golden
