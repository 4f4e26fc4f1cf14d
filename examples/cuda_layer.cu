// SPDX-License-Identifier: Apache-2.0

// The layer of custom_layer.cpp on a CUDA device: the same configuration, another backend. Memory is the device's, calls are
// ordered by a stream, and nothing waits but `synchronize` and `download`.

#include <cmath>
#include <cstdio>
#include <vector>

#include "pesc/cuda.cuh"

namespace {

struct my_layer : pesc::moe_defaults {
  static constexpr int experts = 4;
  using router = pesc::top_k_router<2>;
  using expert = pesc::adapter_expert<16>;
  using lora = pesc::lora<8>;
  using compute = pesc::bf16;  // frozen products on the tensor cores
};

using pesc::index_t;
using layer_type = pesc::moe_layer<my_layer, pesc::cuda_backend>;

int run() {
  constexpr index_t tokens = 24, hidden = 128, intermediate = 256;
  pesc::cuda_backend ctx;
  const layer_type layer{ctx, {.hidden = hidden, .intermediate = intermediate}};

  std::vector<float> values(tokens * hidden);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = std::sin(static_cast<float>(i));
  pesc::device_buffer<float> x(tokens * hidden), y(tokens * hidden), dx(tokens * hidden);
  upload(ctx, pesc::vector_view<const float>{values.data(), tokens * hidden}, x.view());

  auto buffers = layer.prepare(ctx, tokens);  // the only step that allocates
  auto gradients = layer.make_gradients();
  layer.forward(ctx, x.matrix(tokens, hidden), y.matrix(tokens, hidden), buffers, {.training = true});
  // The loss |y|² / 2, whose gradient is y.
  layer.backward(ctx, y.matrix(tokens, hidden), dx.matrix(tokens, hidden), gradients, buffers);

  std::vector<float> out(values.size()), slope(values.size());
  download(ctx, pesc::as_const(y.view()), pesc::vector_view<float>{out.data(), tokens * hidden});
  download(ctx, pesc::as_const(dx.view()), pesc::vector_view<float>{slope.data(), tokens * hidden});
  double loss = 0.0;
  double steepness = 0.0;
  for (std::size_t i = 0; i < out.size(); ++i) {
    loss += 0.5 * static_cast<double>(out[i]) * static_cast<double>(out[i]);
    steepness += static_cast<double>(slope[i]) * static_cast<double>(slope[i]);
  }
  std::printf("device of compute capability %d: loss %.3f, |dx| %.3f\n", ctx.limits().compute_capability,
              loss, std::sqrt(steepness));
  return std::isfinite(loss) && loss > 0.0 && steepness > 0.0 ? 0 : 1;
}

}  // namespace

int main() {
  try {
    return run();
  } catch (const pesc::error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
