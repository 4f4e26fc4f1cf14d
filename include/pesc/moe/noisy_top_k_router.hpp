// SPDX-License-Identifier: Apache-2.0
#pragma once

// A router with parameters and a loss of its own. In training, noise whose size the router learns is added to
// the logits before the choice. The loss asks for equal importance (sum of gates) and equal load (a smooth
// estimate of how many tokens choose an expert): Shazeer et al., "Outrageously large neural networks" (2017).

#include "pesc/moe/route.hpp"

namespace pesc {

/// \brief The trainable weights of a noisy router.
template <class Space = host_space>
struct noisy_router_parameters {
  matrix_view<float, Space> weight;  ///< [experts, hidden], of the logits
  matrix_view<float, Space> noise;   ///< [experts, hidden], of the size of their noise

  [[nodiscard]] static noisy_router_parameters carve(parameter_arena<Space>& arena, const moe_shape& shape) {
    noisy_router_parameters out;
    out.weight = arena.take(shape.experts, shape.hidden);
    out.noise = arena.take(shape.experts, shape.hidden);
    return out;
  }

  template <class F>
  void for_each(F&& f) const {
    f(std::string("router"), as_batch(weight));
    f(std::string("router_noise"), as_batch(noise));
  }

  /// \brief Zeros: at first the noise alone chooses, so that all experts get tokens.
  void initialize(const random_stream&) const {
    fill_zero(as_batch(weight));
    fill_zero(as_batch(noise));
  }
};

/// \brief What a noisy router keeps between forward and backward; `logits` are those without noise.
template <class Space = host_space>
struct noisy_routing_state : routing_state<Space> {
  matrix_view<float, Space> raw;  ///< [tokens, experts], x Wnᵀ; the noise has size softplus(raw) + epsilon
  matrix_view<float, Space> noise;        ///< [tokens, experts], normal numbers
  matrix_view<float, Space> noisy;        ///< [tokens, experts], the logits that chose
  vector_view<double, Space> importance;  ///< [experts], as of the last `noisy_balance`
  vector_view<double, Space> load;        ///< [experts], as of the last `noisy_balance`
  matrix_view<const float, Space>
      given;  ///< [tokens, experts], taken for `noise` instead of a draw; empty: draw

  template <class Router>
  [[nodiscard]] static noisy_routing_state carve(const Router& router, workspace<Space>& ws,
                                                 const moe_shape& shape, index_t tokens) {
    noisy_routing_state s;
    static_cast<routing_state<Space>&>(s) =
        routing_state<Space>::carve(ws, tokens, shape.experts, router.max_slots(tokens));
    s.raw = ws.template take<float>(tokens, shape.experts);
    s.noise = ws.template take<float>(tokens, shape.experts);
    s.noisy = ws.template take<float>(tokens, shape.experts);
    s.importance = ws.template take<double>(shape.experts);
    s.load = ws.template take<double>(shape.experts);
    return s;
  }
};

/// \brief Keeps the k largest noisy logits of a token; gates are their softmax. Without training there is no
/// noise.
///
/// Its own loss is CV²(importance) + CV²(load) over the rows of one call, scaled by
/// `balance_gradient::router_scale`; with `balance_kind::none` it is the only one.
/// \tparam K  experts per token, at most 15 (16 where every expert is chosen); `dynamic`: from the shape
/// \tparam Indicator  how the load estimate tells that an expert is chosen
template <int K, load_indicator Indicator = load_indicator::noisy_logit>
struct noisy_top_k_router {
  static_assert(K == dynamic || (K >= 1 && K <= max_top_k), "pesc: noisy_top_k_router keeps 1 to 16 experts");

  static constexpr int top_k = K;
  static constexpr load_indicator indicator = Indicator;
  static constexpr residual_kind residual = residual_kind::one;

  template <class Space>
  using parameters = noisy_router_parameters<Space>;
  template <class Space>
  using state = noisy_routing_state<Space>;

  /// \throws shape_error when the load estimate would need a 17th largest logit
  explicit noisy_top_k_router(const moe_shape& shape) : k{shape.top_k}, experts{shape.experts} {
    PESC_EXPECTS(k.value() < max_top_k || k.value() == experts, "noisy top-k of ", k.value(), " with ",
                 experts, " experts: at most ", max_top_k - 1, ", or as many as there are experts");
  }

  [[nodiscard]] index_t max_slots(index_t tokens) const { return tokens * k.value(); }

  /// \brief Whether the load is the smooth estimate, which has a gradient, or a count.
  [[nodiscard]] bool estimates_load(const moe_run& run) const { return run.training && k.value() < experts; }

  [[no_unique_address]] extent<K> k;
  index_t experts = 0;
  float noise_epsilon = 1e-2f;  ///< smallest size of the noise
};

static_assert(Router<noisy_top_k_router<2>>);
static_assert(Router<noisy_top_k_router<dynamic, load_indicator::llama_moe>>);

/// \brief logits = x Wᵀ; in training noise is added; then the k best experts of each token and their gates.
template <class X, int K, load_indicator Indicator, class Space>
void route_forward(X& ctx, const noisy_top_k_router<K, Indicator>& router, matrix_view<const float, Space> x,
                   const noisy_router_parameters<Space>& p, const noisy_routing_state<Space>& state,
                   const moe_run& run, workspace<Space>& ws) {
  matmul(ctx, x, as_const(p.weight), state.logits, {.transpose_b = true}, ws);
  if (run.training) matmul(ctx, x, as_const(p.noise), state.raw, {.transpose_b = true}, ws);
  if (ws.counting()) return;
  if (!run.training) {
    copy(ctx, as_const(state.logits), state.noisy);
  } else {
    if (state.given.empty())
      fill_normal(ctx, run.stream(random_site::router_noise), state.noise);
    else
      copy(ctx, state.given, state.noise);
    noisy_logits(ctx, as_const(state.logits), as_const(state.raw), as_const(state.noise),
                 router.noise_epsilon, state.noisy);
  }
  const int k = static_cast<int>(router.k.value());
  top_k_softmax(ctx, as_const(state.noisy), k, gate_options{}, state.expert, state.gate);
  number_slots(ctx, k, state.token);
}

namespace detail {

/// \brief The arguments of the load estimate.
template <int K, load_indicator Indicator, class Space>
[[nodiscard]] noisy_load_inputs<Space> load_inputs(const noisy_top_k_router<K, Indicator>& router,
                                                   const noisy_routing_state<Space>& s,
                                                   vector_view<const std::uint8_t, Space> valid) {
  return {.clean = s.logits,
          .raw = s.raw,
          .noise = s.noise,
          .noisy = s.noisy,
          .k = static_cast<int>(router.k.value()),
          .epsilon = router.noise_epsilon,
          .indicator = Indicator,
          .valid = valid};
}

/// \brief Experts of the slots whose token counts; the others as dropped.
template <class X, class Space>
[[nodiscard]] vector_view<const std::int32_t, Space> counted_experts(
    X& ctx, const noisy_routing_state<Space>& s, vector_view<const std::uint8_t, Space> valid,
    workspace<Space>& ws) {
  auto counted = ws.template take<std::int32_t>(s.expert.size);
  if (ws.counting() || valid.empty()) return s.expert;
  mask_slots(ctx, as_const(s.token), as_const(s.expert), valid, s.importance.size, counted);
  return counted;
}

}  // namespace detail

/// \brief Importance and load of the last forward call, into the state.
///
/// \param valid  [tokens], 0 for rows that do not count; empty: all rows count
template <class X, int K, load_indicator Indicator, class Space>
void noisy_totals(X& ctx, const noisy_top_k_router<K, Indicator>& router, const noisy_routing_state<Space>& s,
                  vector_view<const std::uint8_t, Space> valid, const moe_run& run, workspace<Space>& ws) {
  const typename workspace<Space>::scope scratch(ws);
  const auto counted = detail::counted_experts(ctx, s, valid, ws);
  auto count = ws.template take<double>(s.load.size);
  const bool smooth = router.estimates_load(run);
  if (!ws.counting()) {
    fill(ctx, s.importance, 0.0);
    fill(ctx, s.load, 0.0);
    fill(ctx, count, 0.0);
    gate_totals(ctx, counted, as_const(s.gate), s.importance, smooth ? count : s.load);
  }
  if (smooth) noisy_load(ctx, detail::load_inputs(router, s, valid), s.load, ws);
}

/// \brief out[0] = CV²(importance), out[1] = CV²(load) of the last forward call; their sum is the router's loss.
template <class X, int K, load_indicator Indicator, class Space>
void noisy_balance(X& ctx, const noisy_top_k_router<K, Indicator>& router,
                   const noisy_routing_state<Space>& s, vector_view<const std::uint8_t, Space> valid,
                   const moe_run& run, vector_view<double, Space> out, workspace<Space>& ws) {
  noisy_totals(ctx, router, s, valid, run, ws);
  if (ws.counting()) return;
  cv_squared(ctx, as_const(s.importance), out.part(0, 1));
  cv_squared(ctx, as_const(s.load), out.part(1, 1));
}

/// \brief Adds the router's part to `dx` and to the gradients of both weights.
///
/// \param dgate  [slots], gradient of the gates
template <class X, int K, load_indicator Indicator, class Space>
void route_backward(X& ctx, const noisy_top_k_router<K, Indicator>& router, matrix_view<const float, Space> x,
                    const noisy_router_parameters<Space>& p, const noisy_routing_state<Space>& s,
                    vector_view<const float, Space> dgate, const balance_gradient<Space>& balance,
                    matrix_view<float, Space> dx, const noisy_router_parameters<Space>& gradient,
                    const moe_run& run, workspace<Space>& ws) {
  const typename workspace<Space>::scope scratch(ws);
  const index_t tokens = s.logits.rows;
  const index_t experts = s.logits.cols;
  auto dlogits = ws.template take<float>(tokens, experts);
  auto draw = ws.template take<float>(tokens, experts);
  auto dnoisy = ws.template take<float>(tokens, experts);
  auto dgates = ws.template take<float>(1, dgate.size);
  auto dtotal = ws.template take<float>(experts);
  if (!ws.counting()) {
    fill(ctx, dlogits, 0.0f);
    fill(ctx, draw, 0.0f);
    fill(ctx, dnoisy, 0.0f);
    copy(ctx, matrix_view<const float, Space>(dgate.data, 1, dgate.size), dgates);
  }
  const vector_view<float, Space> gates(dgates.data, dgate.size);
  if (balance.router_scale != 0.0f || ws.counting()) {
    const double scale = static_cast<double>(balance.router_scale);
    const auto counted = detail::counted_experts(ctx, s, balance.valid, ws);
    noisy_totals(ctx, router, s, balance.valid, run, ws);
    if (!ws.counting()) {
      cv_squared_gradient(ctx, as_const(s.importance), scale, dtotal);
      importance_backward(ctx, counted, as_const(dtotal), gates);
      if (router.estimates_load(run)) {
        cv_squared_gradient(ctx, as_const(s.load), scale, dtotal);
        noisy_load_backward(ctx, detail::load_inputs(router, s, balance.valid), as_const(dtotal), dlogits,
                            draw, dnoisy);
      }
    }
  }
  if (!ws.counting()) {
    top_k_softmax_backward(ctx, as_const(s.noisy), static_cast<int>(router.k.value()), gate_options{},
                           as_const(s.expert), as_const(s.gate), as_const(gates), dnoisy);
    if (run.training)
      noisy_logits_backward(ctx, as_const(s.raw), as_const(s.noise), as_const(dnoisy), dlogits, draw);
    else
      add_scaled(ctx, as_const(dnoisy), 1.0f, dlogits);
    if (balance.active())
      balance_backward(ctx, as_const(s.logits), balance.valid, balance.fractions, balance.scale,
                       balance.z_scale, dlogits, balance.rows);
  }
  matmul(ctx, as_const(dlogits), x, gradient.weight, {.transpose_a = true, .accumulate = true}, ws);
  matmul(ctx, as_const(dlogits), as_const(p.weight), dx, {.accumulate = true}, ws);
  if (!run.training) return;
  matmul(ctx, as_const(draw), x, gradient.noise, {.transpose_a = true, .accumulate = true}, ws);
  matmul(ctx, as_const(draw), as_const(p.noise), dx, {.accumulate = true}, ws);
}

}  // namespace pesc
