// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/moe/balance.hpp"
#include "pesc/moe/combine.hpp"
#include "pesc/moe/dispatch.hpp"
#include "pesc/moe/parameters.hpp"

namespace pesc {

/// \brief Runs the five stages one after another through the operations of any backend.
///
/// `carve` lays out what is kept between forward and backward; `forward` and `backward` take scratch from a workspace, and
/// on a counting workspace only compute how much they need.
template <MoeConfig Config, class X>
struct staged_plan {
  using space = typename X::memory_space;
  using router = typename Config::router;
  using trainables = moe_trainables<Config, space>;
  using frozen = moe_frozen<Config, space>;
  using activation = typename Config::activation;
  using compute = typename Config::compute;
  static constexpr bool converts = !std::is_same_v<activation, float>;

  struct state {
    matrix_view<const float, space> x;  ///< the caller's input, or its copy in float
    matrix_view<float, space> x_copy;
    typename router::template state<space> routing;
    slot_groups<space> groups;
    typename Config::shared::template state<space> shared;
    typename Config::expert::template state<space> experts;
  };

  [[nodiscard]] static state carve(workspace<space>& ws, const router& r, const moe_shape& shape,
                                   index_t tokens, const moe_options& options) {
    const index_t slots = r.max_slots(tokens);
    state s;
    if constexpr (converts) s.x_copy = ws.template take<float>(tokens, shape.hidden);
    s.routing = router::template state<space>::carve(r, ws, shape, tokens);
    s.groups = carve_groups(ws, tokens, shape.experts, slots);
    s.shared = Config::shared::template state<space>::carve(ws, shape, tokens, options.recompute_ffn);
    s.experts = Config::expert::template state<space>::carve(ws, shape, slots);
    return s;
  }

  static void forward(X& ctx, const router& r, matrix_view<const activation, space> x, const frozen& weights,
                      const trainables& p, matrix_view<activation, space> y, state& s, const moe_shape& shape,
                      const moe_options& options, const moe_run& run, workspace<space>& ws) {
    const typename workspace<space>::scope scratch(ws);
    if constexpr (converts) {
      if (!ws.counting()) copy(ctx, x, s.x_copy);
      s.x = s.x_copy;
    } else {
      s.x = x;
    }
    route_forward(ctx, r, s.x, p.router, s.routing, run, ws);
    dispatch(ctx, static_cast<const routing_state<space>&>(s.routing), s.groups, ws);
    shared_forward<compute>(ctx, typename Config::shared{}, s.x, weights, p.shared, s.shared, shape, options,
                            run, ws);
    auto e = ws.template take<float>(s.routing.slots(), shape.hidden);
    experts_forward(ctx, typename Config::expert{}, expert_input_of(s), s.groups, p.experts, s.experts, e,
                    options, run, ws);
    if constexpr (converts) {
      auto y_float = ws.template take<float>(s.x.rows, shape.hidden);
      if (ws.counting()) return;
      combine(ctx, as_const(s.shared.out), as_const(e), s.routing, s.groups, router::residual, y_float);
      copy(ctx, as_const(y_float), y);
    } else {
      if (ws.counting()) return;
      combine(ctx, as_const(s.shared.out), as_const(e), s.routing, s.groups, router::residual, y);
    }
  }

  /// \brief Writes dx, adds to `gradient`.
  static void backward(X& ctx, const router& r, matrix_view<const activation, space> dy,
                       const frozen& weights, const trainables& p, matrix_view<activation, space> dx,
                       const trainables& gradient, state& s, const balance_gradient<space>& balance,
                       const moe_shape& shape, const moe_options& options, const moe_run& run,
                       workspace<space>& ws) {
    const typename workspace<space>::scope scratch(ws);
    if constexpr (converts) {
      auto dy_float = ws.template take<float>(dy.rows, dy.cols);
      auto dx_float = ws.template take<float>(dx.rows, dx.cols);
      if (!ws.counting()) copy(ctx, dy, dy_float);
      backward_float(ctx, r, as_const(dy_float), weights, p, dx_float, gradient, s, balance, shape, options,
                     run, ws);
      if (!ws.counting()) copy(ctx, as_const(dx_float), dx);
    } else {
      backward_float(ctx, r, dy, weights, p, dx, gradient, s, balance, shape, options, run, ws);
    }
  }

 private:
  static matrix_view<const float, space> expert_input_of(const state& s) {
    if constexpr (Config::expert::input == expert_input::layer_input)
      return s.x;
    else
      return as_const(s.shared.out);
  }

  static void backward_float(X& ctx, const router& r, matrix_view<const float, space> dy,
                             const frozen& weights, const trainables& p, matrix_view<float, space> dx,
                             const trainables& gradient, state& s, const balance_gradient<space>& balance,
                             const moe_shape& shape, const moe_options& options, const moe_run& run,
                             workspace<space>& ws) {
    auto dh = ws.template take<float>(dy.rows, shape.hidden);
    auto dgate = ws.template take<float>(s.routing.slots());
    if (!ws.counting()) fill(ctx, dx, 0.0f);
    // The experts write the gates' gradient first; the part of the residual is added to it.
    constexpr bool from_layer_input = Config::expert::input == expert_input::layer_input;
    if (!ws.counting() && !from_layer_input) fill(ctx, dh, 0.0f);
    experts_backward(ctx, typename Config::expert{}, expert_input_of(s), s.groups, as_const(s.routing.gate),
                     p.experts, s.experts, dy, dgate, from_layer_input ? dx : dh, gradient.experts, options,
                     run, ws);
    if (!ws.counting()) {
      const typename workspace<space>::scope inner(ws);
      if (from_layer_input) fill(ctx, dh, 0.0f);
      combine_backward(ctx, dy, as_const(s.shared.out), s.routing, s.groups, router::residual, dh, dgate);
    }
    shared_backward<compute>(ctx, typename Config::shared{}, s.x, weights, p.shared, s.shared, as_const(dh),
                             dx, gradient.shared, shape, options, run, ws);
    route_backward(ctx, r, s.x, p.router, s.routing, as_const(dgate), balance, dx, gradient.router, run, ws);
  }
};

/// \brief What a layer runs on backend `X`; a backend with fused kernels specialises it.
template <MoeConfig Config, class X>
struct plan_of {
  using type = staged_plan<Config, X>;
};
template <MoeConfig Config, class X>
using plan_for = typename plan_of<Config, X>::type;

}  // namespace pesc
