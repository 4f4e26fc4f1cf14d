// SPDX-License-Identifier: Apache-2.0
// The layers and the model library without exceptions and run-time type information: a layer is made, run forward and
// backward, and a step of the optimiser is taken.

#include <cmath>
#include <cstdio>
#include <vector>

#include "pesc/model.hpp"
#include "pesc/pesc.hpp"

#if defined(__cpp_exceptions) || defined(__cpp_rtti)
#error "this unit is to be built with -fno-exceptions -fno-rtti"
#endif

namespace {

struct config : pesc::moe_defaults {
  static constexpr int experts = 4;
  using expert = pesc::adapter_expert<8>;
  using lora = pesc::lora<4>;
};

constexpr pesc::index_t tokens = 9;
constexpr pesc::index_t hidden = 64;

}  // namespace

int main() {
  pesc::cpu_backend ctx(2);
  const pesc::moe_layer<config, pesc::cpu_backend> made(ctx, {.hidden = hidden, .intermediate = 100});
  pesc::owned_parameters<config> parameters(made.shape());
  parameters.views().initialize(1);
  const pesc::moe_layer<config, pesc::cpu_backend> layer(made.shape(), made.weights(), parameters);
  auto buffers = layer.prepare(ctx, tokens);
  auto gradients = layer.make_gradients();
  auto first = layer.make_gradients();
  auto second = layer.make_gradients();
  std::vector<float> x(tokens * hidden), y(x.size()), again(x.size()), dx(x.size());
  pesc::fill_uniform({x.data(), 1, tokens, hidden}, 1, {.seed = 2});

  layer.forward(ctx, {x.data(), tokens, hidden}, {y.data(), tokens, hidden}, buffers, {.training = true});
  layer.backward(ctx, {y.data(), tokens, hidden}, {dx.data(), tokens, hidden}, gradients, buffers);
  adamw_step(ctx, parameters.arena(), pesc::as_const(gradients.arena()), first.arena(), second.arena(),
             pesc::adamw_step_coefficients({}, 1e-2, 1));
  layer.forward(ctx, {x.data(), tokens, hidden}, {again.data(), tokens, hidden}, buffers);

  // The step went down the gradient of |y|² / 2.
  double before = 0.0;
  double after = 0.0;
  for (std::size_t i = 0; i < y.size(); ++i) {
    before += static_cast<double>(y[i] * y[i]);
    after += static_cast<double>(again[i] * again[i]);
  }
  std::printf("squared output %.6f before the step, %.6f after\n", before, after);
  return before > 0.0 && after < before ? 0 : 1;
}
