// SPDX-License-Identifier: Apache-2.0
// The stages around the shared network one by one, and the loop over experts in plain Eigen that a reader would write.

#include "moe/bench_layer.hpp"
#include "pesc/cpu/eigen.hpp"

namespace {

using bench::backend;
using pesc::index_t;
using layer_type = pesc::moe_layer<bench::layer_config<float>, backend>;
using router = layer_type::router;
using expert = bench::layer_config<float>::expert;

/// A layer after a forward call, with scratch for its stages.
struct stages {
  index_t tokens, hidden;
  backend ctx;
  const layer_type& layer;
  std::vector<float> x, y;
  layer_type::buffers buffers;
  router rule;
  pesc::buffer<std::byte> memory;
  std::vector<float> e;

  explicit stages(const benchmark::State& state)
      : tokens{state.range(0)},
        hidden{state.range(1)},
        layer{bench::layer_of<float>(ctx, hidden)},
        x(bench::uniform(tokens * hidden, 1)),
        y(x.size()),
        buffers(layer.prepare(ctx, tokens)),
        rule(layer.shape()),
        memory(layer.scratch_bytes(ctx, tokens)),
        e(static_cast<std::size_t>(tokens * bench::top_k * hidden)) {
    layer.forward(ctx, rows(), {y.data(), tokens, hidden}, buffers);
  }
  [[nodiscard]] pesc::matrix_view<const float> rows() const { return {x.data(), tokens, hidden}; }
  [[nodiscard]] pesc::matrix_view<float> expert_rows() { return {e.data(), tokens * bench::top_k, hidden}; }
  [[nodiscard]] pesc::workspace<> scratch() { return {memory.data(), memory.size()}; }
};

void route(benchmark::State& state) {
  stages s(state);
  for (auto _ : state) {
    pesc::workspace<> ws = s.scratch();
    route_forward(s.ctx, s.rule, s.rows(), s.layer.parameters().router, s.buffers.state().routing, {}, ws);
  }
  bench::report(state, s.tokens, bench::cost(s.hidden).router);
}

void dispatch(benchmark::State& state) {
  stages s(state);
  for (auto _ : state) {
    pesc::workspace<> ws = s.scratch();
    pesc::dispatch(s.ctx, s.buffers.routing(), s.buffers.groups(), ws);
  }
  bench::report(state, s.tokens, 0);
}

void experts(benchmark::State& state) {
  stages s(state);
  for (auto _ : state) {
    pesc::workspace<> ws = s.scratch();
    experts_forward(s.ctx, expert{}, as_const(s.buffers.state().shared.out), s.buffers.groups(),
                    s.layer.parameters().experts, s.buffers.state().experts, s.expert_rows(),
                    s.layer.options(), {}, ws);
  }
  bench::report(state, s.tokens, bench::cost(s.hidden).adapters);
}

void combine(benchmark::State& state) {
  stages s(state);
  for (auto _ : state)
    pesc::combine(s.ctx, as_const(s.buffers.state().shared.out), as_const(s.expert_rows()),
                  s.buffers.routing(), s.buffers.groups(), pesc::residual_kind::one,
                  {s.y.data(), s.tokens, s.hidden});
  bench::report(state, s.tokens, static_cast<double>((1 + bench::top_k) * s.hidden));
}

/// Experts and combine as a loop over experts: gather the rows of each, two products, scatter.
void naive_experts_and_combine(benchmark::State& state) {
  stages s(state);
  using matrix = pesc::eigen_matrix<float>;
  const auto& routing = s.buffers.routing();
  const auto& p = s.layer.parameters().experts;
  const auto h = pesc::as_eigen(as_const(s.buffers.state().shared.out));
  for (auto _ : state) {
    matrix y = h;
    for (index_t e = 0; e < bench::experts; ++e) {
      std::vector<index_t> slots;
      for (index_t slot = 0; slot < routing.slots(); ++slot)
        if (routing.expert[slot] == e) slots.push_back(slot);
      matrix rows(static_cast<index_t>(slots.size()), s.hidden);
      for (std::size_t i = 0; i < slots.size(); ++i)
        rows.row(static_cast<index_t>(i)) = h.row(routing.token[slots[i]]);
      matrix z = rows * pesc::as_eigen(p.down[e]).transpose();
      z = z.unaryExpr([](float v) { return pesc::gelu::value(v); });
      const matrix out = z * pesc::as_eigen(p.up[e]).transpose();
      for (std::size_t i = 0; i < slots.size(); ++i)
        y.row(routing.token[slots[i]]) += routing.gate[slots[i]] * out.row(static_cast<index_t>(i));
    }
    benchmark::DoNotOptimize(y.data());
  }
  bench::report(state, s.tokens, bench::cost(s.hidden).adapters);
}

}  // namespace

BENCHMARK(route)->Apply(bench::sizes);
BENCHMARK(dispatch)->Apply(bench::sizes);
BENCHMARK(experts)->Apply(bench::sizes);
BENCHMARK(combine)->Apply(bench::sizes);
BENCHMARK(naive_experts_and_combine)->Apply(bench::sizes);
