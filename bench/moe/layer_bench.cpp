// SPDX-License-Identifier: Apache-2.0
// The whole layer, forward and backward, on all threads and on every instruction set of the machine.

#include "moe/bench_layer.hpp"

namespace {

using bench::backend;
using pesc::index_t;

/// Tokens by hidden size by instruction set.
void all_levels(benchmark::internal::Benchmark* b) {
  std::vector<std::int64_t> levels;
  for (int level = static_cast<int>(pesc::cpu::detect_isa()); level > 0; --level) levels.push_back(level);
  if (levels.empty()) levels.push_back(0);
  b->ArgNames({"tokens", "hidden", "isa"})
      ->ArgsProduct({{1, 16, 256}, {1024, 4096}, levels})
      ->UseRealTime()
      ->Unit(benchmark::kMicrosecond);
}

template <class Compute>
struct caller {
  index_t tokens, hidden;
  backend ctx;
  const pesc::moe_layer<bench::layer_config<Compute>, backend>& layer;
  std::vector<float> x, dy, y, dx;
  pesc::moe_buffers<bench::layer_config<Compute>, backend> buffers;

  explicit caller(const benchmark::State& state)
      : tokens{state.range(0)},
        hidden{state.range(1)},
        ctx{static_cast<pesc::cpu::isa>(state.range(2))},
        layer{bench::layer_of<Compute>(ctx, hidden)},
        x(bench::uniform(tokens * hidden, 1)),
        dy(bench::uniform(tokens * hidden, 2)),
        y(x.size()),
        dx(x.size()),
        buffers(layer.prepare(ctx, tokens)) {}

  void forward() {
    layer.forward(ctx, {x.data(), tokens, hidden}, {y.data(), tokens, hidden}, buffers, {.training = true});
  }
};

template <class Compute>
void layer_forward(benchmark::State& state) {
  caller<Compute> c(state);
  for (auto _ : state) c.forward();
  state.SetLabel(pesc::cpu::name_of(c.ctx.level()));
  bench::report(state, c.tokens, bench::cost(c.hidden).forward());
}

template <class Compute>
void layer_backward(benchmark::State& state) {
  caller<Compute> c(state);
  auto gradients = c.layer.make_gradients();
  c.forward();
  for (auto _ : state)
    c.layer.backward(c.ctx, {c.dy.data(), c.tokens, c.hidden}, {c.dx.data(), c.tokens, c.hidden}, gradients,
                     c.buffers);
  state.SetLabel(pesc::cpu::name_of(c.ctx.level()));
  bench::report(state, c.tokens, bench::cost(c.hidden).backward());
}

}  // namespace

BENCHMARK(layer_forward<float>)->Apply(all_levels);
BENCHMARK(layer_forward<pesc::bf16>)->Apply(all_levels);
BENCHMARK(layer_backward<float>)->Apply(all_levels);
BENCHMARK(layer_backward<pesc::bf16>)->Apply(all_levels);
