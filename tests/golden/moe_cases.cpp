// SPDX-License-Identifier: Apache-2.0

// Kinds camelidae_moe and sparsetral_moe: one layer, forward and backward.

#include "golden.hpp"
#include "pesc/pesc.hpp"

namespace golden {
namespace {

using pesc::gate_order;

/// \brief The layer of a checkpoint whose numbers are known at run time only.
template <gate_order Order>
struct dynamic_config : pesc::moe_dynamic<> {
  using router = pesc::top_k_router<pesc::dynamic, Order>;
};

/// \brief The same with the counts compiled in.
template <gate_order Order, int Experts, int K>
struct fixed_config : pesc::moe_defaults {
  static constexpr int experts = Experts;
  using router = pesc::top_k_router<K, Order>;
  using expert = pesc::adapter_expert<pesc::dynamic>;
  using weight = pesc::unquantized<float>;
};

/// \brief Activations in memory and in products as bfloat16.
template <gate_order Order>
struct low_config : dynamic_config<Order> {
  using activation = pesc::bf16;
  using compute = pesc::bf16;
};

/// \brief What the two kinds name differently.
struct naming {
  const char* expert;  ///< in front of the index of an expert
};

struct layer_case {
  pesc::moe_shape shape;
  index_t tokens = 0;
  float scale = 1;
  std::vector<float> x, dy, gate, up, down, router;
  std::vector<std::vector<float>> adapter_down, adapter_up;

  layer_case(const golden_case& c, const naming& names) {
    shape = {.hidden = c.integer("hidden"),
             .intermediate = c.integer("ffn"),
             .experts = c.integer("experts"),
             .top_k = c.integer("top_k"),
             .rank = c.integer("adapter_dim")};
    tokens = c.integer("tokens");
    scale = static_cast<float>(c.number("moe_scaling"));
    PESC_EXPECTS(tokens >= 1 && shape.experts >= 1 && shape.experts < 1 << 16, tokens, " tokens, ",
                 shape.experts, " experts");
    x = c.floats("input");
    dy = c.floats("grad.y");
    gate = c.floats("gate_proj.weight");
    up = c.floats("up_proj.weight");
    down = c.floats("down_proj.weight");
    router = c.floats("moe_adapter.router.weight");
    for (index_t e = 0; e < shape.experts; ++e) {
      adapter_down.push_back(c.floats(expert_tensor(names, e, "down")));
      adapter_up.push_back(c.floats(expert_tensor(names, e, "up")));
    }
  }

  static std::string expert_tensor(const naming& names, index_t e, const char* which) {
    return std::string("moe_adapter.experts.") + names.expert + std::to_string(e) + ".adapter_" + which +
           ".weight";
  }
};

struct layer_result {
  std::vector<float> y, logits, gates, dx, drouter;
  std::vector<std::int64_t> experts;
  std::vector<std::vector<float>> ddown, dup;
};

void fill_matrix(pesc::matrix_view<float> to, const std::vector<float>& from) {
  PESC_EXPECTS(static_cast<index_t>(from.size()) == to.size(), "tensor of ", from.size(),
               " values, expected ", to.rows, " x ", to.cols);
  std::copy(from.begin(), from.end(), to.data);
}

std::vector<float> values_of(pesc::matrix_view<float> m) { return {m.data, m.data + m.size()}; }

template <class Config>
pesc::moe_layer<Config, pesc::cpu_backend> make_layer(const layer_case& l) {
  pesc::cpu_backend ctx(1);
  using format = typename Config::weight;
  const pesc::moe_shape& s = l.shape;
  const pesc::dense_ffn<float> dense{view(l.gate, s.intermediate, s.hidden),
                                     view(l.up, s.intermediate, s.hidden),
                                     view(l.down, s.hidden, s.intermediate)};
  pesc::moe_layer<Config, pesc::cpu_backend> layer(
      ctx, s, pesc::frozen_ffn<format>(ctx, pesc::unquantized<float>::info(), dense),
      {.expert_scale = l.scale});
  fill_matrix(layer.parameters().router.weight, l.router);
  for (index_t e = 0; e < s.experts; ++e) {
    fill_matrix(layer.parameters().experts.down[e], l.adapter_down[static_cast<std::size_t>(e)]);
    fill_matrix(layer.parameters().experts.up[e], l.adapter_up[static_cast<std::size_t>(e)]);
  }
  return layer;
}

template <class Config>
layer_result run_layer(pesc::cpu_backend& ctx, const layer_case& l) {
  using T = typename Config::activation;
  const auto layer = make_layer<Config>(l);
  auto buffers = layer.prepare(ctx, l.tokens);
  const auto gradients = layer.make_gradients();
  const auto to_activation = [](const std::vector<float>& from) {
    std::vector<T> out;
    for (const float v : from) out.push_back(pesc::from_float<T>(v));
    return out;
  };
  const auto to_float = [](const std::vector<T>& from) {
    std::vector<float> out;
    for (const T v : from) out.push_back(pesc::to_float(v));
    return out;
  };
  const std::vector<T> x = to_activation(l.x);
  const std::vector<T> dy = to_activation(l.dy);
  std::vector<T> y(x.size());
  std::vector<T> dx(x.size());
  const auto rows = [&]<class V>(V& v) { return pesc::matrix_view(v.data(), l.tokens, l.shape.hidden); };
  PESC_EXPECTS(static_cast<index_t>(x.size()) == l.tokens * l.shape.hidden && dy.size() == x.size(),
               "input of ", x.size(), " values");
  layer.forward(ctx, rows(x), rows(y), buffers);
  layer.backward(ctx, rows(dy), rows(dx), gradients, buffers);
  layer_result r;
  r.y = to_float(y);
  r.dx = to_float(dx);
  const auto& routing = buffers.routing();
  r.logits = values_of(routing.logits);
  r.gates.assign(routing.gate.begin(), routing.gate.end());
  r.experts.assign(routing.expert.begin(), routing.expert.end());
  r.drouter = values_of(gradients.views().router.weight);
  for (index_t e = 0; e < l.shape.experts; ++e) {
    r.ddown.push_back(values_of(gradients.views().experts.down[e]));
    r.dup.push_back(values_of(gradients.views().experts.up[e]));
  }
  return r;
}

/// \brief Compares with `expected` or, where it is there, `expected64`; gradients of the frozen network are
/// not computed.
void compare_layer(const golden_case& c, outcome& out, const layer_result& r, const naming& names,
                   const std::string& prefix, double tolerance, double gradient_tolerance,
                   const std::string& where) {
  const auto near = [&](const std::string& name, const std::vector<float>& actual, double allowed) {
    if (c.has(prefix + name)) out.near(prefix + name + where, actual, c.doubles(prefix + name), allowed);
  };
  near("y", r.y, tolerance);
  near("router_logits", r.logits, tolerance);
  near("gates", r.gates, tolerance);
  near("grad.input", r.dx, gradient_tolerance);
  near("grad.moe_adapter.router.weight", r.drouter, gradient_tolerance);
  for (std::size_t e = 0; e < r.ddown.size(); ++e) {
    near("grad." + layer_case::expert_tensor(names, static_cast<index_t>(e), "down"), r.ddown[e],
         gradient_tolerance);
    near("grad." + layer_case::expert_tensor(names, static_cast<index_t>(e), "up"), r.dup[e],
         gradient_tolerance);
  }
}

void compare_bits(outcome& out, const layer_result& a, const layer_result& b, const std::string& where) {
  out.exact("static y" + where, a.y, b.y);
  out.exact("static experts" + where, a.experts, b.experts);
  out.exact("static gates" + where, a.gates, b.gates);
  out.exact("static dx" + where, a.dx, b.dx);
  out.exact("static router gradient" + where, a.drouter, b.drouter);
  for (std::size_t e = 0; e < a.ddown.size(); ++e) {
    out.exact("static down gradient" + where, a.ddown[e], b.ddown[e]);
    out.exact("static up gradient" + where, a.dup[e], b.dup[e]);
  }
}

template <gate_order Order>
void run_moe(const golden_case& c, outcome& out, const naming& names) {
  const layer_case l(c, names);
  const bool low = c.text("dtype") == "bfloat16";
  const std::vector<std::int64_t> experts = c.integers("expected.experts");
  for_each_isa([&](pesc::cpu_backend& ctx, const std::string& where) {
    const layer_result r = run_layer<dynamic_config<Order>>(ctx, l);
    out.exact("experts" + where, r.experts, experts);
    compare_layer(c, out, r, names, "expected.", low ? 3e-2 : 1e-5, low ? 6e-2 : 1e-5, where);
    // Of 16-bit weights too the reference has a run in double, which products in float must meet.
    compare_layer(c, out, r, names, "expected64.", 1e-5, 1e-5, where);
    if (low) {
      const layer_result rounded = run_layer<low_config<Order>>(ctx, l);
      out.exact("experts bf16" + where, rounded.experts, experts);
      compare_layer(c, out, rounded, names, "expected.", 3e-2, 6e-2, " bf16" + where);
    }
    if (l.shape.experts == 8 && l.shape.top_k == 2)
      compare_bits(out, run_layer<fixed_config<Order, 8, 2>>(ctx, l), r, where);
    if (l.shape.experts == 16 && l.shape.top_k == 4)
      compare_bits(out, run_layer<fixed_config<Order, 16, 4>>(ctx, l), r, where);
  });
}

}  // namespace

void run_camelidae_moe(const golden_case& c, outcome& out) {
  run_moe<gate_order::softmax_after_top_k>(c, out, {"expert_"});
  // Whatever the routing, the published auxiliary loss is the number of experts over k.
  pesc::cpu_backend ctx(1);
  pesc::balance_pool pool(c.integer("experts"), c.integer("top_k"));
  pool.sums().totals[0] = 1;
  out.near("aux_loss",
           std::vector<double>{pool.values(ctx, {.kind = pesc::balance_kind::camelidae_constant}).balance},
           c.floats("aux_loss"), 1e-6);
}

void run_sparsetral_moe(const golden_case& c, outcome& out) {
  run_moe<gate_order::softmax_before_top_k>(c, out, {""});
}

}  // namespace golden
