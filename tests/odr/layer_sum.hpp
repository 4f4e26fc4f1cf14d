// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "pesc/pesc.hpp"

// In an unnamed namespace: every unit compiles its own, with its own flags.
namespace {

struct small_layer : pesc::moe_defaults {
  static constexpr int experts = 4;
  using expert = pesc::adapter_expert<8, pesc::gelu>;
};

/// Sum of the outputs of a small layer on the unit's own context; the same in every unit up to rounding.
float layer_sum() {
  pesc::cpu_backend ctx{1};
  const pesc::moe_layer<small_layer, pesc::cpu_backend> layer{
      ctx, {.hidden = 64, .intermediate = 128}, {}, 1};
  const pesc::index_t tokens = 3;
  std::vector<float> x(static_cast<std::size_t>(tokens * 64));
  std::vector<float> y(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 7) - 2.5f;

  auto buffers = layer.prepare(ctx, tokens);
  layer.forward(ctx, {x.data(), tokens, 64}, {y.data(), tokens, 64}, buffers);
  float sum = 0.0f;
  for (const float value : y) sum += value * value;
  return sum;
}

}  // namespace
