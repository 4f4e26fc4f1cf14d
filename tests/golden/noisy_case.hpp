// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/moe/noisy_top_k_router.hpp"
#include "router_case.hpp"

namespace golden {

using noisy_router = pesc::noisy_top_k_router<pesc::dynamic, pesc::load_indicator::llama_moe>;

struct noisy_result {
  std::vector<float> gates, dx, dweight, dnoise;
  std::vector<double> importance, load;
  std::vector<std::int64_t> experts;
  double loss = 0;
};

/// \brief Forward and backward with the noise of the case.
///
/// \param dgates  gradient of the gates
/// \param loss_weight  of the router's own loss
template <class X>
[[nodiscard]] noisy_result run_noisy(X& ctx, const golden_case& c, const router_input& in,
                                     const std::vector<float>& dgates, float loss_weight) {
  using space = typename X::memory_space;
  noisy_router router(in.shape);
  router.noise_epsilon = static_cast<float>(c.number("noise_epsilon"));
  const pesc::moe_run run{.training = c.flag("train")};
  const index_t experts = in.shape.experts;
  placed x(ctx, in.x), weight(ctx, in.weight), noise_weight(ctx, c.floats("noise.weight"));
  placed noise(ctx, c.floats("noise")), upstream(ctx, dgates);
  placed<X, float> dx(ctx, in.tokens * in.hidden);
  placed<X, float> dweight(ctx, experts * in.hidden), dnoise(ctx, experts * in.hidden);
  placed<X, double> terms(ctx, 2);
  const auto input = as_const(x.matrix(in.tokens, in.hidden));
  const pesc::noisy_router_parameters<space> p{weight.matrix(experts, in.hidden),
                                               noise_weight.matrix(experts, in.hidden)};
  const pesc::noisy_router_parameters<space> gradient{dweight.matrix(experts, in.hidden),
                                                      dnoise.matrix(experts, in.hidden)};
  pesc::balance_gradient<space> balance;
  balance.router_scale = loss_weight;
  noisy_result r;
  with_workspace(ctx, [&](pesc::workspace<space>& ws) {
    auto state = noisy_router::state<space>::carve(router, ws, in.shape, in.tokens);
    state.given = noise.matrix(in.tokens, experts);
    route_forward(ctx, router, input, p, state, run, ws);
    noisy_balance(ctx, router, state, {}, run, terms.list(), ws);
    route_backward(ctx, router, input, p, state, as_const(upstream.list()), balance,
                   dx.matrix(in.tokens, in.hidden), gradient, run, ws);
    if (ws.counting()) return;
    r.gates = values_of(ctx, state.gate);
    r.importance = values_of(ctx, state.importance);
    r.load = values_of(ctx, state.load);
    const std::vector<std::int32_t> chosen = values_of(ctx, state.expert);
    r.experts.assign(chosen.begin(), chosen.end());
  });
  for (const double term : terms.values()) r.loss += term;
  r.dx = dx.values();
  r.dweight = dweight.values();
  r.dnoise = dnoise.values();
  return r;
}

/// \brief Compares a run that scores alone drove, and one that the loss alone drove.
void compare_noisy(const golden_case& c, outcome& out, const noisy_result& scores,
                   const noisy_result& balance, const std::string& where);

/// \brief Kind router_noisy_topk on a backend.
template <class X>
void compare_noisy_router(X& ctx, const golden_case& c, outcome& out, const std::string& where) {
  const router_input in(c, "gate.weight");
  const std::vector<float> dgates = upstream_gates(c, in);
  const std::vector<float> none = zeros(static_cast<index_t>(dgates.size()));
  const float weight = static_cast<float>(c.number("balance_loss_weight"));
  const noisy_result scores = run_noisy(ctx, c, in, dgates, 0.0f);
  compare_noisy(c, out, scores, run_noisy(ctx, c, in, none, weight), where);
}

}  // namespace golden
