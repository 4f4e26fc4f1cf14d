// SPDX-License-Identifier: Apache-2.0
//
// The layer against the double reference, forward and backward, without a test framework: small enough to compile
// for another processor and run on an emulator, where only the scalar kernels exist.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

#include "pesc/pesc.hpp"
#include "support/random.hpp"
#include "support/reference_layer.hpp"

namespace {

using pesc::index_t;

constexpr index_t tokens = 7;
constexpr index_t hidden = 40;
constexpr index_t intermediate = 100;

template <class Format>
struct layer_config : pesc::moe_defaults {
  static constexpr int experts = 5;
  using expert = pesc::adapter_expert<6, pesc::gelu>;
  using weight = Format;
};

int failures = 0;

void compare(const char* format, const char* what, const float* actual, const double* expected, index_t n) {
  double worst = 0;
  double largest = 0;
  for (index_t i = 0; i < n; ++i) {
    const double difference = std::fabs(static_cast<double>(actual[i]) - expected[i]);
    worst = std::isnan(difference) ? INFINITY : std::max(worst, difference);
    largest = std::max(largest, std::fabs(expected[i]));
  }
  const bool close = largest > 0 && worst <= 1e-5 * largest;
  std::printf("%-6s %-14s error %.2g%s\n", format, what, worst / largest, close ? "" : "  FAILED");
  if (!close) ++failures;
}

/// The numbers that a layer computes with when it stores `weight` in this format.
template <class Format>
reference::matrix stored(pesc::matrix_view<const float> weight) {
  std::vector<float> out(static_cast<std::size_t>(weight.size()));
  const auto packed = pesc::quantize<Format>(weight);
  pesc::dequantize(packed.view(), pesc::matrix_view<float>{out.data(), weight.rows, weight.cols});
  return reference::from(out.data(), weight.rows, weight.cols);
}

void fill(pesc::batch_view<float> out, std::uint64_t seed) {
  const auto values = support::normal_floats(out.size(), seed, 0.3);
  std::copy(values.begin(), values.end(), out.data);
}

template <class Format>
void check(const char* name) {
  using config = layer_config<Format>;
  const auto gate = support::normal_floats(intermediate * hidden, 1, 0.2);
  const auto up = support::normal_floats(intermediate * hidden, 2, 0.2);
  const auto down = support::normal_floats(hidden * intermediate, 3, 0.2);
  const pesc::dense_ffn<float> dense{{gate.data(), intermediate, hidden},
                                     {up.data(), intermediate, hidden},
                                     {down.data(), hidden, intermediate}};
  pesc::cpu_backend ctx{2};
  const pesc::moe_layer<config, pesc::cpu_backend> layer{
      ctx, {.hidden = hidden, .intermediate = intermediate}, dense, {.expert_scale = 0.5f}};
  const auto& p = layer.parameters();
  fill({p.router.weight.data, 1, config::experts, hidden}, 4);
  fill(p.experts.down, 5);
  fill(p.experts.up, 6);

  reference::moe_layer expected;
  expected.ffn.gate.weight = stored<Format>(dense.gate);
  expected.ffn.up.weight = stored<Format>(dense.up);
  expected.ffn.down.weight = stored<Format>(dense.down);
  expected.router.weight = reference::from(p.router.weight.data, config::experts, hidden);
  expected.expert_scale = 0.5;
  for (index_t e = 0; e < config::experts; ++e)
    expected.experts.push_back({reference::from(p.experts.down[e].data, p.experts.down.rows, hidden),
                                reference::from(p.experts.up[e].data, hidden, p.experts.up.cols)});

  const auto x = support::normal_floats(tokens * hidden, 7);
  const auto dy = support::normal_floats(tokens * hidden, 8);
  std::vector<float> y(x.size());
  std::vector<float> dx(x.size());
  auto gradients = layer.make_gradients();
  auto buffers = layer.prepare(ctx, tokens);
  layer.forward(ctx, {x.data(), tokens, hidden}, {y.data(), tokens, hidden}, buffers, {.training = true});
  layer.backward(ctx, {dy.data(), tokens, hidden}, {dx.data(), tokens, hidden}, gradients, buffers);

  const auto state = reference::layer_forward(expected, reference::from(x.data(), tokens, hidden));
  const auto g = reference::layer_backward(expected, state, reference::from(dy.data(), tokens, hidden));
  compare(name, "y", y.data(), state.y.data(), tokens * hidden);
  compare(name, "dx", dx.data(), g.dx.data(), tokens * hidden);
  compare(name, "router", gradients.views().router.weight.data, g.router.weight.data(),
          config::experts * hidden);
  for (index_t e = 0; e < config::experts; ++e) {
    if (buffers.load(e) == 0) continue;
    const auto& d = gradients.views().experts;
    compare(name, "expert down", d.down[e].data, g.experts[e].down.data(), g.experts[e].down.count());
    compare(name, "expert up", d.up[e].data, g.experts[e].up.data(), g.experts[e].up.count());
  }
}

}  // namespace

int main() {
  std::printf("instruction set %s\n", pesc::cpu::name_of(pesc::cpu::detect_isa()));
  check<pesc::unquantized<float>>("float");
  check<pesc::nf4<64, pesc::double_quant<>>>("nf4-dq");
  return failures == 0 ? 0 : 1;
}
