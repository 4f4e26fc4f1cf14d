// SPDX-License-Identifier: Apache-2.0
//
// A layer of one's own: a configuration struct, one forward call, what the router decided, one backward call.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

#include "pesc/pesc.hpp"

namespace {

using pesc::index_t;

// What a configuration does not say it takes from moe_defaults.
struct my_layer : pesc::moe_defaults {
  static constexpr int experts = 4;
  using router = pesc::top_k_router<2>;                // two experts a token, gates by softmax over the two
  using expert = pesc::adapter_expert<16>;             // bottleneck of 16 behind the shared network
  using weight = pesc::nf4<64, pesc::double_quant<>>;  // frozen weights in 4 bits
  using lora = pesc::lora<8>;                          // low-rank updates of the three frozen projections
};

constexpr index_t tokens = 8;
constexpr index_t hidden = 128;

std::vector<float> numbers(std::uint32_t seed) {
  const pesc::random_stream stream{.seed = seed};
  std::vector<float> out(tokens * hidden);
  for (std::uint32_t i = 0; i < out.size(); ++i) out[i] = 2.0f * stream.uniform(0, i) - 1.0f;
  return out;
}

}  // namespace

int main() {
  // The context holds the threads and the instruction set, the layer holds the weights, buffers hold one caller's memory.
  pesc::cpu_backend ctx;
  pesc::moe_layer<my_layer, pesc::cpu_backend> layer{ctx, {.hidden = hidden, .intermediate = 320}};
  auto buffers = layer.prepare(ctx, tokens);  // the only step that allocates

  const std::vector<float> x = numbers(1);
  std::vector<float> y(x.size());
  layer.forward(ctx, {x.data(), tokens, hidden}, {y.data(), tokens, hidden}, buffers);

  std::printf("instruction set %s, %d threads\n\n", pesc::cpu::name_of(ctx.level()),
              ctx.executor().concurrency());
  const auto& routing = buffers.routing();
  const index_t k = layer.shape().top_k;
  bool gates_sum_to_one = true;
  for (index_t t = 0; t < tokens; ++t) {
    std::printf("token %d:", static_cast<int>(t));
    float sum = 0.0f;
    for (index_t slot = t * k; slot < (t + 1) * k; ++slot) {
      std::printf("  expert %d with gate %.3f", routing.expert[slot],
                  static_cast<double>(routing.gate[slot]));
      sum += routing.gate[slot];
    }
    std::printf("\n");
    gates_sum_to_one = gates_sum_to_one && std::fabs(sum - 1.0f) < 1e-6f;
  }
  index_t assigned = 0;
  for (index_t e = 0; e < layer.shape().experts; ++e) {
    std::printf("expert %d processed %d tokens\n", static_cast<int>(e), static_cast<int>(buffers.load(e)));
    assigned += buffers.load(e);
  }

  // Training: the same forward call with dropout and noise on, then dx is written and gradients are added to.
  const std::vector<float> dy = numbers(2);
  std::vector<float> dx(x.size());
  auto gradients = layer.make_gradients();
  layer.forward(ctx, {x.data(), tokens, hidden}, {y.data(), tokens, hidden}, buffers, {.training = true});
  layer.backward(ctx, {dy.data(), tokens, hidden}, {dx.data(), tokens, hidden}, gradients, buffers);

  std::printf("\nlength of the gradients; where the matrix that follows starts as zero, zero at first:\n");
  double total = 0.0;
  gradients.views().for_each([&](const std::string& name, pesc::batch_view<float> tensor) {
    const double length =
        std::sqrt(squared_norm(ctx, pesc::vector_view<const float>(tensor.data, tensor.size())));
    std::printf("  %-18s %d x %d x %d  %.4f\n", name.c_str(), static_cast<int>(tensor.count),
                static_cast<int>(tensor.rows), static_cast<int>(tensor.cols), length);
    total += length;
  });

  const bool finite = std::all_of(y.begin(), y.end(), [](float value) { return std::isfinite(value); });
  return gates_sum_to_one && finite && assigned == tokens * k && total > 0.0 ? 0 : 1;
}
