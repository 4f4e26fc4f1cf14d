// SPDX-License-Identifier: Apache-2.0

#include "layer_case.hpp"

namespace golden {

layer_case::layer_case(const golden_case& c, const naming& given) : names{given} {
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
    adapter_down.push_back(c.floats(expert_tensor(e, "down")));
    adapter_up.push_back(c.floats(expert_tensor(e, "up")));
  }
}

std::string layer_case::expert_tensor(index_t e, const char* which) const {
  return std::string("moe_adapter.experts.") + names.expert + std::to_string(e) + ".adapter_" + which +
         ".weight";
}

void compare_layer(const golden_case& c, outcome& out, const layer_case& l, const layer_result& r,
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
    near("grad." + l.expert_tensor(static_cast<index_t>(e), "down"), r.ddown[e], gradient_tolerance);
    near("grad." + l.expert_tensor(static_cast<index_t>(e), "up"), r.dup[e], gradient_tolerance);
  }
}

}  // namespace golden
