// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "on_backend.hpp"
#include "pesc/moe/balance.hpp"
#include "pesc/moe/layer.hpp"
#include "pesc/quant/unquantized.hpp"

namespace golden {

using pesc::gate_order;

/// \brief The layer of a checkpoint whose numbers are known at run time only.
template <gate_order Order>
struct dynamic_config : pesc::moe_dynamic<> {
  using router = pesc::top_k_router<pesc::dynamic, Order>;
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
inline constexpr naming camelidae_names{"expert_"};
inline constexpr naming sparsetral_names{""};

/// \brief Weights and inputs of one layer.
struct layer_case {
  naming names;
  pesc::moe_shape shape;
  index_t tokens = 0;
  float scale = 1;
  std::vector<float> x, dy, gate, up, down, router;
  std::vector<std::vector<float>> adapter_down, adapter_up;

  layer_case(const golden_case& c, const naming& given);

  /// \brief The name of a matrix of expert `e`; `which` is down or up.
  [[nodiscard]] std::string expert_tensor(index_t e, const char* which) const;
};

struct layer_result {
  std::vector<float> y, logits, gates, dx, drouter;
  std::vector<std::int64_t> experts;
  std::vector<std::vector<float>> ddown, dup;
};

template <class Config, class X>
[[nodiscard]] pesc::moe_layer<Config, X> make_layer(X& ctx, const layer_case& l) {
  using frozen = typename pesc::moe_layer<Config, X>::owned_weights;
  const pesc::moe_shape& s = l.shape;
  const pesc::dense_ffn<float> dense{view(l.gate, s.intermediate, s.hidden),
                                     view(l.up, s.intermediate, s.hidden),
                                     view(l.down, s.hidden, s.intermediate)};
  pesc::moe_layer<Config, X> layer(ctx, s, frozen(ctx, pesc::unquantized<float>::info(), dense),
                                   {.expert_scale = l.scale});
  assign(ctx, layer.parameters().router.weight, l.router);
  for (index_t e = 0; e < s.experts; ++e) {
    assign(ctx, layer.parameters().experts.down[e], l.adapter_down[static_cast<std::size_t>(e)]);
    assign(ctx, layer.parameters().experts.up[e], l.adapter_up[static_cast<std::size_t>(e)]);
  }
  return layer;
}

/// \brief `values` as `T`.
template <class T, class U>
[[nodiscard]] std::vector<T> converted(const std::vector<U>& values) {
  std::vector<T> out;
  for (const U v : values) out.push_back(pesc::from_float<T>(pesc::to_float(v)));
  return out;
}

template <class Config, class X>
[[nodiscard]] layer_result run_layer(X& ctx, const layer_case& l) {
  using T = typename Config::activation;
  const auto layer = make_layer<Config>(ctx, l);
  auto buffers = layer.prepare(ctx, l.tokens);
  const auto gradients = layer.make_gradients();
  placed x(ctx, converted<T>(l.x)), dy(ctx, converted<T>(l.dy));
  placed<X, T> y(ctx, x.list().size), dx(ctx, x.list().size);
  const auto rows = [&](placed<X, T>& list) { return list.matrix(l.tokens, l.shape.hidden); };
  layer.forward(ctx, pesc::as_const(rows(x)), rows(y), buffers);
  layer.backward(ctx, pesc::as_const(rows(dy)), rows(dx), gradients, buffers);
  layer_result r;
  r.y = converted<float>(y.values());
  r.dx = converted<float>(dx.values());
  const auto& routing = buffers.routing();
  r.logits = values_of(ctx, routing.logits);
  r.gates = values_of(ctx, routing.gate);
  const std::vector<std::int32_t> chosen = values_of(ctx, routing.expert);
  r.experts.assign(chosen.begin(), chosen.end());
  r.drouter = values_of(ctx, gradients.views().router.weight);
  for (index_t e = 0; e < l.shape.experts; ++e) {
    r.ddown.push_back(values_of(ctx, gradients.views().experts.down[e]));
    r.dup.push_back(values_of(ctx, gradients.views().experts.up[e]));
  }
  return r;
}

/// \brief Compares with `expected` or, where it is there, `expected64`; gradients of the frozen network are
/// not computed.
void compare_layer(const golden_case& c, outcome& out, const layer_case& l, const layer_result& r,
                   const std::string& prefix, double tolerance, double gradient_tolerance,
                   const std::string& where);

/// \brief Kinds camelidae_moe and sparsetral_moe on a backend.
/// \returns the result in float
template <gate_order Order, class X>
layer_result compare_moe(X& ctx, const golden_case& c, outcome& out, const layer_case& l,
                         const std::string& where) {
  const bool low = c.text("dtype") == "bfloat16";
  const std::vector<std::int64_t> experts = c.integers("expected.experts");
  const layer_result r = run_layer<dynamic_config<Order>>(ctx, l);
  out.exact("experts" + where, r.experts, experts);
  compare_layer(c, out, l, r, "expected.", low ? 3e-2 : 1e-5, low ? 6e-2 : 1e-5, where);
  // Of 16-bit weights too the reference has a run in double, which products in float must meet.
  compare_layer(c, out, l, r, "expected64.", 1e-5, 1e-5, where);
  if (low) {
    const layer_result rounded = run_layer<low_config<Order>>(ctx, l);
    out.exact("experts bf16" + where, rounded.experts, experts);
    compare_layer(c, out, l, rounded, "expected.", 3e-2, 6e-2, " bf16" + where);
  }
  return r;
}

/// \brief Whatever the routing, the published auxiliary loss is the number of experts over k.
template <class X>
void compare_constant_loss(X& ctx, const golden_case& c, outcome& out) {
  pesc::balance_pool<pesc::resource_of<X>> pool(c.integer("experts"), c.integer("top_k"));
  const std::vector<double> rows{1, 0};
  upload(ctx, view(rows), pool.sums().totals);
  out.near("aux_loss",
           std::vector<double>{pool.values(ctx, {.kind = pesc::balance_kind::camelidae_constant}).balance},
           c.floats("aux_loss"), 1e-6);
}

}  // namespace golden
