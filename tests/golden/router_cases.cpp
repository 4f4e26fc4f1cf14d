// SPDX-License-Identifier: Apache-2.0

// Kinds router_*.

#include "each_isa.hpp"
#include "noisy_case.hpp"
#include "pesc/pesc.hpp"
#include "switch_case.hpp"

namespace golden {
namespace {

void compare_bits(outcome& out, const router_result& a, const router_result& b, const std::string& where) {
  out.exact("static experts" + where, a.experts, b.experts);
  out.exact("static weights" + where, a.gates, b.gates);
  out.exact("static gradient" + where, a.dx, b.dx);
  out.exact("static weight gradient" + where, a.dweight, b.dweight);
}

}  // namespace

void run_router_top_k(const golden_case& c, outcome& out) {
  const router_input in(c, "weight");
  const std::vector<float> dgates = upstream_gates(c, in);
  const bool low = c.text("dtype") == "bfloat16";
  for_each_gate_rule(c, [&]<gate_order Order, bool Renormalize>() {
    for_each_isa([&](pesc::cpu_backend& ctx, const std::string& where) {
      const router_result r = compare_top_k<Order, Renormalize>(ctx, c, out, in, dgates, where);
      const auto compare_static = [&]<int K>(std::integral_constant<int, K>) {
        using fixed = pesc::top_k_router<K, Order, Renormalize>;
        compare_bits(out, run_router(ctx, fixed(in.shape), in, dgates, low), r, where);
      };
      if (in.shape.experts == 8 && in.shape.top_k == 2) compare_static(std::integral_constant<int, 2>{});
      if (in.shape.experts == 16 && in.shape.top_k == 4) compare_static(std::integral_constant<int, 4>{});
    });
  });
}

void run_router_noisy_topk(const golden_case& c, outcome& out) {
  for_each_isa(
      [&](pesc::cpu_backend& ctx, const std::string& where) { compare_noisy_router(ctx, c, out, where); });
}

void run_router_switch(const golden_case& c, outcome& out) {
  const switch_input in(c);
  for_each_isa(
      [&](pesc::cpu_backend& ctx, const std::string& where) { compare_switch(ctx, c, out, in, where); });
}

}  // namespace golden
