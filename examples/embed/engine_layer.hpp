// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/pesc.hpp"

// The feed-forward layer of this program's inference engine.
struct engine_config : pesc::moe_defaults {
  static constexpr int experts = 8;
  using router = pesc::top_k_router<2>;
  using expert = pesc::adapter_expert<16>;
  using activation = pesc::bf16;
  using compute = pesc::bf16;
};

using engine_layer = pesc::moe_layer<engine_config, pesc::cpu_backend>;

// Instantiated once, in engine_layer.cpp; a unit that includes this file compiles none of it again.
extern template class pesc::moe_layer<engine_config, pesc::cpu_backend>;
