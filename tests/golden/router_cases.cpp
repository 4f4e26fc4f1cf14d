// SPDX-License-Identifier: Apache-2.0

// Kinds router_*: the routers as a layer calls them. Logits that a file gives directly go through an identity
// weight, which leaves every bit of them.

#include <algorithm>
#include <functional>

#include "golden.hpp"
#include "pesc/moe/balance.hpp"
#include "pesc/moe/noisy_top_k_router.hpp"
#include "pesc/moe/switch_router.hpp"
#include "pesc/pesc.hpp"

namespace golden {
namespace {

using pesc::as_const;
using pesc::gate_order;

/// \brief Input and weight of a router and the sizes that follow.
struct router_input {
  std::vector<float> x;
  std::vector<float> weight;
  index_t tokens = 0;
  index_t hidden = 0;
  pesc::moe_shape shape;  ///< hidden, experts, top_k

  router_input(const golden_case& c, const char* weight_name) {
    const bool direct = c.has("logits");
    x = c.floats(direct ? "logits" : "input");
    shape.experts = c.integer("experts");
    shape.top_k = c.integer("top_k");
    hidden = c.shape(direct ? "logits" : "input").back();
    PESC_EXPECTS(hidden > 0 && shape.experts > 0 && shape.top_k >= 1 && shape.top_k <= shape.experts &&
                     shape.top_k <= pesc::max_top_k && shape.experts < 1 << 16,
                 "router of ", shape.experts, " experts, top-k ", shape.top_k, ", ", hidden, " inputs");
    tokens = static_cast<index_t>(x.size()) / hidden;
    shape.hidden = hidden;
    if (!direct) {
      weight = c.floats(weight_name);
    } else {
      weight = zeros(shape.experts * hidden);
      for (index_t e = 0; e < std::min(shape.experts, hidden); ++e)
        weight[static_cast<std::size_t>(e * hidden + e)] = 1;
    }
  }

  [[nodiscard]] pesc::matrix_view<const float> x_view() const { return view(x, tokens, hidden); }
  [[nodiscard]] pesc::matrix_view<float> weight_view() { return view(weight, shape.experts, hidden); }
};

struct router_result {
  std::vector<float> logits, gates, dx, dweight;
  std::vector<std::int64_t> experts;
};

/// \brief Rounds every value to bfloat16 and back.
void round_to_bf16(pesc::matrix_view<float> m) {
  for (index_t i = 0; i < m.rows; ++i)
    for (index_t j = 0; j < m.cols; ++j) m(i, j) = pesc::to_float(pesc::to_bf16(m(i, j)));
}

/// \brief Forward and backward of a router without own parameters.
///
/// \param low  logits are rounded to bfloat16, as a router that computes in it has them
template <class Router>
router_result run_router(pesc::cpu_backend& ctx, const Router& router, router_input& in,
                         const std::vector<float>& dgates, const pesc::balance_gradient<>& balance = {},
                         bool low = false) {
  router_result r;
  r.dx = zeros(in.tokens * in.hidden);
  r.dweight = zeros(in.shape.experts * in.hidden);
  const pesc::router_parameters<> p{in.weight_view()};
  const pesc::router_parameters<> gradient{view(r.dweight, in.shape.experts, in.hidden)};
  with_workspace([&](pesc::workspace<>& ws) {
    const auto state = Router::template state<pesc::host_space>::carve(router, ws, in.shape, in.tokens);
    route_forward(ctx, router, in.x_view(), p, state, pesc::moe_run{}, ws);
    if constexpr (requires { Router::gates; })
      if (low && !ws.counting()) {
        round_to_bf16(state.logits);
        top_k_softmax(ctx, as_const(state.logits), static_cast<int>(router.k.value()), Router::gates,
                      state.expert, state.gate);
      }
    route_backward(ctx, router, in.x_view(), p, state, view(dgates), balance,
                   view(r.dx, in.tokens, in.hidden), gradient, pesc::moe_run{}, ws);
    if (ws.counting()) return;
    r.logits.assign(state.logits.data, state.logits.data + state.logits.size());
    r.gates.assign(state.gate.begin(), state.gate.end());
    r.experts.assign(state.expert.begin(), state.expert.end());
  });
  return r;
}

double largest(const std::vector<float>& values) {
  double out = 0;
  for (const float v : values) out = std::fmax(out, std::fabs(static_cast<double>(v)));
  return out;
}

/// \brief Rows where equal scores leave the order to the implementation: their gates are sorted, their
/// gradients dropped on both sides.
struct ambiguity {
  std::vector<std::uint8_t> rows;  ///< empty: none

  explicit ambiguity(const golden_case& c) {
    if (c.has("ambiguous")) rows = c.bytes("ambiguous");
  }

  template <class T>
  void each_row(std::vector<T>& values, void (*f)(T*, T*)) const {
    if (rows.empty()) return;
    const std::size_t width = values.size() / rows.size();
    for (std::size_t i = 0; i < rows.size(); ++i)
      if (rows[i] != 0) f(values.data() + i * width, values.data() + (i + 1) * width);
  }
  template <class T>
  void sort(std::vector<T>& values) const {
    each_row<T>(values, [](T* first, T* last) { std::sort(first, last, std::greater<T>{}); });
  }
  template <class T>
  void drop(std::vector<T>& values) const {
    each_row<T>(values, [](T* first, T* last) { std::fill(first, last, T{}); });
  }
};

void compare_router(const golden_case& c, outcome& out, router_result r, const std::string& where,
                    double upstream) {
  const bool low = c.text("dtype") == "bfloat16";
  const double tolerance = low ? 4e-3 : 1e-6;
  const ambiguity unclear(c);
  std::vector<std::int64_t> experts = c.integers("expected.experts");
  std::vector<float> weights = c.floats("expected.weights");
  unclear.drop(r.experts);
  unclear.drop(experts);
  unclear.sort(r.gates);
  unclear.sort(weights);
  out.exact("experts" + where, r.experts, experts);
  out.near("weights" + where, r.gates, weights, tolerance);
  if (c.has("expected.logits")) out.near("logits" + where, r.logits, c.floats("expected.logits"), tolerance);
  // A gradient that vanishes in exact arithmetic is rounding of the upstream one on both sides.
  const double gradient_tolerance = low ? 1e-2 : 1e-6;
  if (c.has("expected.grad.logits")) {
    std::vector<float> expected = c.floats("expected.grad.logits");
    unclear.drop(expected);
    unclear.drop(r.dx);
    out.near("grad.logits" + where, r.dx, expected, gradient_tolerance, upstream);
  }
  if (c.has("expected.grad.input"))
    out.near("grad.input" + where, r.dx, c.floats("expected.grad.input"), gradient_tolerance, 0.1 * upstream);
  if (c.has("expected.grad.weight"))
    out.near("grad.weight" + where, r.dweight, c.floats("expected.grad.weight"), gradient_tolerance,
             0.1 * upstream);
}

void compare_bits(outcome& out, const router_result& a, const router_result& b, const std::string& where) {
  out.exact("static experts" + where, a.experts, b.experts);
  out.exact("static weights" + where, a.gates, b.gates);
  out.exact("static gradient" + where, a.dx, b.dx);
  out.exact("static weight gradient" + where, a.dweight, b.dweight);
}

template <gate_order Order, bool Renormalize>
void run_top_k(const golden_case& c, outcome& out) {
  router_input in(c, "weight");
  const std::vector<float> dgates = c.floats("grad.weights");
  PESC_EXPECTS(static_cast<index_t>(dgates.size()) == in.tokens * in.shape.top_k, "grad.weights has ",
               dgates.size(), " values");
  const bool low = c.text("dtype") == "bfloat16";
  for_each_isa([&](pesc::cpu_backend& ctx, const std::string& where) {
    using dynamic_router = pesc::top_k_router<pesc::dynamic, Order, Renormalize>;
    const router_result r = run_router(ctx, dynamic_router(in.shape), in, dgates, {}, low);
    const auto compare_static = [&]<int K>(std::integral_constant<int, K>) {
      using fixed = pesc::top_k_router<K, Order, Renormalize>;
      compare_bits(out, run_router(ctx, fixed(in.shape), in, dgates, {}, low), r, where);
    };
    if (in.shape.experts == 8 && in.shape.top_k == 2) compare_static(std::integral_constant<int, 2>{});
    if (in.shape.experts == 16 && in.shape.top_k == 4) compare_static(std::integral_constant<int, 4>{});
    compare_router(c, out, r, where, largest(dgates));
  });
}

// ---- noisy top-k --------------------------------------------------------------------------------

using noisy_router = pesc::noisy_top_k_router<pesc::dynamic, pesc::load_indicator::llama_moe>;

struct noisy_result {
  std::vector<float> gates, dx, dweight, dnoise;
  std::vector<double> importance, load;
  std::vector<std::int64_t> experts;
  double loss = 0;
};

noisy_result run_noisy(pesc::cpu_backend& ctx, const golden_case& c, router_input& in,
                       std::vector<float>& noise_weight, const std::vector<float>& noise,
                       const std::vector<float>& dgates, float loss_weight) {
  noisy_router router(in.shape);
  router.noise_epsilon = static_cast<float>(c.number("noise_epsilon"));
  const pesc::moe_run run{.training = c.flag("train")};
  const index_t experts = in.shape.experts;
  noisy_result r;
  r.dx = zeros(in.tokens * in.hidden);
  r.dweight = zeros(experts * in.hidden);
  r.dnoise = zeros(experts * in.hidden);
  const pesc::noisy_router_parameters<> p{in.weight_view(), view(noise_weight, experts, in.hidden)};
  const pesc::noisy_router_parameters<> gradient{view(r.dweight, experts, in.hidden),
                                                 view(r.dnoise, experts, in.hidden)};
  pesc::balance_gradient<> balance;
  balance.router_scale = loss_weight;
  with_workspace([&](pesc::workspace<>& ws) {
    auto state = noisy_router::state<pesc::host_space>::carve(router, ws, in.shape, in.tokens);
    state.given = view(noise, in.tokens, experts);
    route_forward(ctx, router, in.x_view(), p, state, run, ws);
    double terms[2] = {};
    noisy_balance(ctx, router, state, {}, run, pesc::vector_view<double>{terms, 2}, ws);
    route_backward(ctx, router, in.x_view(), p, state, view(dgates), balance,
                   view(r.dx, in.tokens, in.hidden), gradient, run, ws);
    if (ws.counting()) return;
    r.loss = terms[0] + terms[1];
    r.gates.assign(state.gate.begin(), state.gate.end());
    r.experts.assign(state.expert.begin(), state.expert.end());
    r.importance.assign(state.importance.begin(), state.importance.end());
    r.load.assign(state.load.begin(), state.load.end());
  });
  return r;
}

// ---- switch ---------------------------------------------------------------------------------------

/// \brief Sequences with a token whose two best probabilities are equal where the reference chooses, so that
/// the choice, and with it who is dropped, is open.
std::vector<char> open_sequences(const std::vector<float>& logits, index_t sequences, index_t length,
                                 index_t experts, bool low) {
  std::vector<char> open(static_cast<std::size_t>(sequences), 0);
  for (index_t t = 0; t < sequences * length; ++t) {
    const float* x = logits.data() + t * experts;
    const float top = *std::max_element(x, x + experts);
    double sum = 0;
    for (index_t e = 0; e < experts; ++e) sum += std::exp(static_cast<double>(x[e] - top));
    int best = 0;
    const auto stored = [&](float value) {
      const float p = static_cast<float>(std::exp(static_cast<double>(value - top)) / sum);
      return low ? pesc::to_float(pesc::to_bf16(p)) : p;
    };
    for (index_t e = 0; e < experts; ++e) best += stored(x[e]) == stored(top) ? 1 : 0;
    if (best > 1) open[static_cast<std::size_t>(t / length)] = 1;
  }
  return open;
}

/// \brief Switch loss and z-loss over sequences and the gradient of their logits.
void compare_switch_losses(const golden_case& c, outcome& out, pesc::cpu_backend& ctx, const router_result& r,
                           index_t batch, index_t length, const std::string& where) {
  const index_t experts = c.integer("experts");
  const auto logits = view(r.logits, batch * length, experts);
  std::vector<std::int32_t> token(static_cast<std::size_t>(length));
  std::vector<std::int32_t> expert(static_cast<std::size_t>(batch * length));
  for (std::size_t i = 0; i < expert.size(); ++i) expert[i] = static_cast<std::int32_t>(r.experts[i]);
  for (std::size_t i = 0; i < token.size(); ++i) token[i] = static_cast<std::int32_t>(i);
  std::vector<float> daux = zeros(batch * length * experts);
  std::vector<float> dz = zeros(batch * length * experts);
  double aux = 0;
  double z = 0;
  double terms = 0;
  // The reference takes the mean over sequences of a loss of each; its own pool for each gives that.
  for (index_t b = 0; b < batch; ++b) {
    pesc::balance_pool pool(experts, 1);
    const auto rows = logits.row_range(b * length, length);
    const pesc::vector_view<const std::int32_t> chosen(expert.data() + b * length, length);
    with_workspace([&](pesc::workspace<>& ws) {
      if (!ws.counting()) pool.clear(ctx);
      balance_accumulate(ctx, rows, view(std::as_const(token)), chosen, {}, pool.sums(), ws);
    });
    const float share = 1.0f / static_cast<float>(batch);
    const pesc::balance_options options{.coefficient = share, .z_coefficient = share};
    aux += pool.values(ctx, options).balance / static_cast<double>(batch);
    z += pool.values(ctx, {}).z / static_cast<double>(batch);
    const pesc::balance_gradient<> g = pool.gradient(ctx, options);
    terms = std::fmax(terms, balance_terms(g));
    const auto part = [&](std::vector<float>& d) {
      return view(d, batch * length, experts).row_range(b * length, length);
    };
    balance_backward(ctx, rows, {}, g.fractions, g.scale, 0.0f, part(daux), g.rows);
    balance_backward(ctx, rows, {}, g.fractions, 0.0f, g.z_scale, part(dz), g.rows);
  }
  out.near("aux_loss" + where, std::vector<double>{aux}, c.floats("expected.aux_loss"), 1e-6);
  out.near("grad_aux.logits" + where, daux, c.floats("expected.grad_aux.logits"), 1e-6, terms);
  out.near("z_loss" + where, std::vector<double>{z}, c.floats("expected.z_loss"), 1e-5);
  out.near("grad_z.logits" + where, dz, c.floats("expected.grad_z.logits"), 1e-5);
}

}  // namespace

void run_router_mixtral(const golden_case& c, outcome& out) {
  run_top_k<gate_order::softmax_before_top_k, true>(c, out);
  run_top_k<gate_order::softmax_after_top_k, true>(c, out);
}

void run_router_qwen2_moe(const golden_case& c, outcome& out) {
  if (c.flag("norm_topk_prob"))
    run_top_k<gate_order::softmax_before_top_k, true>(c, out);
  else
    run_top_k<gate_order::softmax_before_top_k, false>(c, out);
}

void run_router_noisy_topk(const golden_case& c, outcome& out) {
  router_input in(c, "gate.weight");
  std::vector<float> noise_weight = c.floats("noise.weight");
  const std::vector<float> noise = c.floats("noise");
  const std::vector<float> dgates = c.floats("grad.weights");
  PESC_EXPECTS(static_cast<index_t>(dgates.size()) == in.tokens * in.shape.top_k, "grad.weights has ",
               dgates.size(), " values");
  const std::vector<float> none = zeros(static_cast<index_t>(dgates.size()));
  const double weight = c.number("balance_loss_weight");
  const double upstream = largest(dgates);
  for_each_isa([&](pesc::cpu_backend& ctx, const std::string& where) {
    const noisy_result scores = run_noisy(ctx, c, in, noise_weight, noise, dgates, 0.0f);
    const noisy_result balance = run_noisy(ctx, c, in, noise_weight, noise, none, static_cast<float>(weight));
    constexpr double tolerance = 1e-5;
    out.exact("experts" + where, scores.experts, c.integers("expected.experts"));
    out.near("weights" + where, scores.gates, c.floats("expected.weights"), tolerance);
    out.near("importance" + where, scores.importance, c.doubles("expected.importance"), tolerance);
    out.near("load" + where, scores.load, c.doubles("expected.load"), tolerance);
    // CV² of equal parts is zero in exact arithmetic: then the loss is rounding.
    out.near("balance_loss" + where, std::vector<double>{weight * scores.loss},
             c.doubles("expected.balance_loss"), tolerance, weight * 1e-2);
    const auto gradients = [&](const noisy_result& r, const std::string& what, double scale) {
      out.near(what + ".input" + where, r.dx, c.floats("expected." + what + ".input"), tolerance, scale);
      out.near(what + ".gate" + where, r.dweight, c.floats("expected." + what + ".gate"), tolerance, scale);
      if (c.has("expected." + what + ".noise"))
        out.near(what + ".noise" + where, r.dnoise, c.floats("expected." + what + ".noise"), tolerance,
                 scale);
    };
    gradients(scores, "grad_scores", 0.1 * upstream);
    gradients(balance, "grad_balance", 1e-2 * weight);
  });
}

void run_router_switch(const golden_case& c, outcome& out) {
  router_input in(c, "weight");
  const index_t batch = c.integer("batch");
  const index_t length = c.integer("seq");
  PESC_EXPECTS(batch >= 1 && length >= 1 && batch * length == in.tokens, "logits of ", in.tokens,
               " tokens, expected ", batch, " x ", length);
  const bool low = c.text("dtype") == "bfloat16";
  const std::vector<float> dgates = c.floats("grad.weights");
  const std::vector<std::int64_t> dispatch = c.integers("expected.dispatch");
  PESC_EXPECTS(static_cast<index_t>(dgates.size()) == in.tokens &&
                   static_cast<index_t>(dispatch.size()) == in.tokens * in.shape.experts &&
                   in.hidden == in.shape.experts,
               "grad.weights has ", dgates.size(), " values, expected.dispatch ", dispatch.size());
  const std::vector<char> open = open_sequences(in.x, batch, length, in.shape.experts, low);
  const double tolerance = low ? 4e-3 : 1e-6;
  for_each_isa([&](pesc::cpu_backend& ctx, const std::string& where) {
    pesc::switch_router router(in.shape);
    router.group = length;
    router.capacity = in.tokens;  // the reference's weights are those of all tokens, dropped or not
    const router_result all = run_router(ctx, router, in, dgates);
    out.near("weights" + where, all.gates, c.floats("expected.weights"), tolerance);
    out.near("grad.logits" + where, all.dx, c.floats("expected.grad.logits"), low ? 1e-2 : 1e-6,
             largest(dgates));
    router.capacity = c.integer("capacity");
    const router_result kept = run_router(ctx, router, in, dgates);
    index_t wrong = 0;
    for (index_t t = 0; t < in.tokens; ++t) {
      if (open[static_cast<std::size_t>(t / length)] != 0) continue;
      const auto i = static_cast<std::size_t>(t);
      const bool dropped = kept.experts[i] == in.shape.experts;
      for (index_t e = 0; e < in.shape.experts; ++e) {
        const bool to_e = !dropped && kept.experts[i] == e;
        if (to_e != (dispatch[static_cast<std::size_t>(t * in.shape.experts + e)] != 0)) ++wrong;
      }
      if (kept.gates[i] != (dropped ? 0.0f : all.gates[i])) ++wrong;
    }
    out.none("dispatch" + where, wrong);
    compare_switch_losses(c, out, ctx, all, batch, length, where);
  });
}

}  // namespace golden
