// SPDX-License-Identifier: Apache-2.0

// The whole layer on a device, forward and backward: E = 8, top-2, rank 64, LoRA 16, NF4 with double-quantised scales,
// products in bf16.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <vector>

#include <benchmark/benchmark.h>

#include "gpu/event_timer.hpp"
#include "gpu/random_weight.hpp"
#include "pesc/cuda.cuh"

namespace {

using namespace pesc;

struct layer_config : moe_defaults {
  static constexpr int experts = 8;
  using router = top_k_router<2>;
  using expert = adapter_expert<64>;
  using lora = pesc::lora<16>;
  using weight = bench::weight_format;
  using compute = bf16;
};
using layer_type = moe_layer<layer_config, cuda_backend>;

/// \brief Width of the feed-forward network of Llama-type models of this hidden size.
index_t intermediate_of(index_t hidden) { return round_up(hidden * 11008 / 4096, 64); }

const layer_type& layer_of(cuda_backend& ctx, index_t hidden) {
  static std::map<index_t, std::unique_ptr<layer_type>> made;
  std::unique_ptr<layer_type>& one = made[hidden];
  if (one) return *one;
  const index_t wide = intermediate_of(hidden);
  layer_type::owned_weights weights;
  weights.gate = pack(ctx, bench::random_weight(wide, hidden, 1).view());
  weights.up = pack(ctx, bench::random_weight(wide, hidden, 2).view());
  weights.down = pack(ctx, bench::random_weight(hidden, wide, 3).view());
  one = std::make_unique<layer_type>(ctx, moe_shape{.hidden = hidden, .intermediate = wide},
                                     std::move(weights));
  return *one;
}

/// \brief Ends the program when a result is not a number or only zeros.
void check(cuda_backend& ctx, const char* name, const device_buffer<float>& result) {
  std::vector<float> values(static_cast<std::size_t>(result.size()));
  download(ctx, result.view(), vector_view<float>{values.data(), result.size()});
  double sum = 0;
  for (const float v : values) sum += std::fabs(static_cast<double>(v));
  if (std::isfinite(sum) && sum > 0) return;
  std::fprintf(stderr, "%s: wrong result, sum of magnitudes %g\n", name, sum);
  std::exit(1);
}

void layer(benchmark::State& state) {
  cuda_backend ctx;
  bench::event_timer timer(ctx);
  const index_t tokens = state.range(0), hidden = state.range(1);
  const bool backward = state.range(2) != 0;
  const layer_type& l = layer_of(ctx, hidden);
  std::vector<float> values(static_cast<std::size_t>(tokens * hidden));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = std::sin(static_cast<float>(i % 9973));
  device_buffer<float> x(tokens * hidden), y(tokens * hidden), dx(tokens * hidden);
  upload(ctx, vector_view<const float>{values.data(), x.size()}, x.view());
  auto buffers = l.prepare(ctx, tokens);
  const auto gradients = l.make_gradients();
  const auto forward = [&] {
    l.forward(ctx, x.matrix(tokens, hidden), y.matrix(tokens, hidden), buffers, {.training = true});
  };
  const auto back = [&] {
    l.backward(ctx, x.matrix(tokens, hidden), dx.matrix(tokens, hidden), gradients, buffers);
  };
  forward();
  back();
  check(ctx, "layer forward", y);
  check(ctx, "layer backward", dx);
  for (auto _ : state) state.SetIterationTime(backward ? timer.seconds(back) : timer.seconds(forward));
  state.SetItemsProcessed(state.iterations() * tokens);
}

}  // namespace

// The first hidden size is small enough for a simulator, which checks results and times nothing.
BENCHMARK(layer)
    ->ArgNames({"tokens", "hidden", "backward"})
    ->ArgsProduct({{5}, {128}, {0, 1}})
    ->ArgsProduct({{1, 16, 64, 512, 2048}, {4096}, {0, 1}})
    ->UseManualTime()
    ->Unit(benchmark::kMicrosecond);
