// SPDX-License-Identifier: Apache-2.0

// Kinds camelidae_moe and sparsetral_moe: one layer, forward and backward.

#include "each_isa.hpp"
#include "layer_case.hpp"
#include "pesc/pesc.hpp"

namespace golden {
namespace {

/// \brief `dynamic_config` with the counts compiled in.
template <gate_order Order, int Experts, int K>
struct fixed_config : pesc::moe_defaults {
  static constexpr int experts = Experts;
  using router = pesc::top_k_router<K, Order>;
  using expert = pesc::adapter_expert<pesc::dynamic>;
  using weight = pesc::unquantized<float>;
};

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
  for_each_isa([&](pesc::cpu_backend& ctx, const std::string& where) {
    const layer_result r = compare_moe<Order>(ctx, c, out, l, where);
    if (l.shape.experts == 8 && l.shape.top_k == 2)
      compare_bits(out, run_layer<fixed_config<Order, 8, 2>>(ctx, l), r, where);
    if (l.shape.experts == 16 && l.shape.top_k == 4)
      compare_bits(out, run_layer<fixed_config<Order, 16, 4>>(ctx, l), r, where);
  });
}

}  // namespace

void run_camelidae_moe(const golden_case& c, outcome& out) {
  run_moe<gate_order::softmax_after_top_k>(c, out, camelidae_names);
  pesc::cpu_backend ctx(1);
  compare_constant_loss(ctx, c, out);
}

void run_sparsetral_moe(const golden_case& c, outcome& out) {
  run_moe<gate_order::softmax_before_top_k>(c, out, sparsetral_names);
}

}  // namespace golden
