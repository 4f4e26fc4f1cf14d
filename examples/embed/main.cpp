// SPDX-License-Identifier: Apache-2.0
//
// An inference engine with a pesc layer in it: bf16 rows inside wider rows of its own, one buffer for every call, from one
// token (generation) to many (a prompt).

#include <cmath>
#include <cstdio>
#include <vector>

#include "engine_layer.hpp"

namespace {

using pesc::index_t;

constexpr index_t hidden = 64;
constexpr index_t row_stride =
    192;  // the engine keeps three vectors a token side by side; the layer reads the second
constexpr index_t most_tokens = 32;

}  // namespace

int main() {
  pesc::cpu_backend ctx;
  const engine_layer layer{ctx, {.hidden = hidden, .intermediate = 176}};
  engine_layer::buffers buffers = layer.prepare_inference(ctx, most_tokens);

  const pesc::random_stream noise{.seed = 1};
  std::vector<pesc::bf16> activations(most_tokens * row_stride);
  for (std::uint32_t i = 0; i < activations.size(); ++i)
    activations[i] = pesc::to_bf16(2.0f * noise.uniform(0, i) - 1.0f);
  const pesc::matrix_view<const pesc::bf16> x{activations.data() + hidden, most_tokens, hidden, row_stride};

  // The whole prompt at once, then token by token: the same layer and the same memory.
  std::vector<pesc::bf16> at_once(most_tokens * hidden);
  std::vector<pesc::bf16> one_by_one(at_once.size());
  const pesc::matrix_view<pesc::bf16> y{at_once.data(), most_tokens, hidden};
  const pesc::matrix_view<pesc::bf16> z{one_by_one.data(), most_tokens, hidden};
  layer.forward(ctx, x, y, buffers);
  for (index_t t = 0; t < most_tokens; ++t) layer.forward(ctx, x.row_range(t, 1), z.row_range(t, 1), buffers);

  double worst = 0.0;
  double largest = 0.0;
  for (std::size_t i = 0; i < at_once.size(); ++i) {
    const auto a = static_cast<double>(to_float(at_once[i]));
    worst = std::fmax(worst, std::fabs(a - static_cast<double>(to_float(one_by_one[i]))));
    largest = std::fmax(largest, std::fabs(a));
  }
  std::printf("pesc %s, instruction set %s\n", pesc::version_string, pesc::cpu::name_of(ctx.level()));
  std::printf("largest output %.4f; prompt at once against token by token: %.1e apart\n", largest, worst);
  return largest > 0.0 && worst < 0.02 * largest ? 0 : 1;
}
