// SPDX-License-Identifier: Apache-2.0
// Forward and backward of PESC_LAYERS layers of different configurations.

#include "pesc/pesc.hpp"

namespace {

struct first : pesc::moe_defaults {
  using lora = pesc::lora<8>;
};
struct second : pesc::moe_defaults {
  static constexpr int experts = 16;
  using router = pesc::top_k_router<4, pesc::gate_order::softmax_before_top_k>;
  using expert = pesc::adapter_expert<32, pesc::relu>;
};

template <class Config>
void step(pesc::cpu_backend& ctx, pesc::matrix_view<float> x, pesc::matrix_view<float> y) {
  const pesc::moe_layer<Config, pesc::cpu_backend> layer{ctx, {.hidden = x.cols, .intermediate = 64}};
  auto buffers = layer.prepare(ctx, x.rows);
  auto gradients = layer.make_gradients();
  layer.forward(ctx, x, y, buffers, {.training = true});
  layer.backward(ctx, x, y, gradients, buffers);
}

}  // namespace

int main() {
  pesc::cpu_backend ctx;
  float x[64] = {};
  float y[64] = {};
  step<first>(ctx, {x, 1, 64}, {y, 1, 64});
#if PESC_LAYERS > 1
  step<second>(ctx, {x, 1, 64}, {y, 1, 64});
#endif
}
