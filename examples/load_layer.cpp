// SPDX-License-Identifier: Apache-2.0
//
// One layer inside another program: made from bf16 weights that the program holds, and from 4-bit bytes as bitsandbytes
// writes them; its trainable parameters lie in the program's own memory. No model and no file is needed.

#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

#include "pesc/pesc.hpp"

namespace {

using pesc::index_t;

constexpr index_t tokens = 6;
constexpr index_t hidden = 64;
constexpr index_t intermediate = 172;  // rows that no block size divides are allowed

struct layer_config : pesc::moe_defaults {
  static constexpr int experts = 4;
  using expert = pesc::adapter_expert<8>;
  using activation = pesc::bf16;  // x, y and their gradients, as the program around the layer holds them
};
using backend = pesc::cpu_backend;
using layer_type = pesc::moe_layer<layer_config, backend>;

// The program's own weights.
std::vector<pesc::bf16> weights(index_t count, std::uint32_t seed) {
  const pesc::random_stream stream{.seed = seed};
  std::vector<pesc::bf16> out(static_cast<std::size_t>(count));
  for (std::uint32_t i = 0; i < out.size(); ++i) out[i] = pesc::to_bf16(0.6f * stream.uniform(0, i) - 0.3f);
  return out;
}

// A 4-bit weight as bitsandbytes holds it: packed codes, codes of the scales, and the second level of the scales.
struct bitsandbytes_weight {
  std::vector<std::uint8_t> packed;  // "weight"
  std::vector<std::uint8_t> absmax;  // "weight.absmax"
  std::vector<float> nested_absmax;  // "weight.nested_absmax"
  std::vector<float> nested_map;     // "weight.nested_quant_map"
  float nested_offset = 0.0f;        // in the JSON of "weight.quant_state"
  index_t rows = 0, cols = 0;

  // A view of these bytes; nothing is copied or computed.
  pesc::quantized_view<layer_config::weight, pesc::row_blocks> view() const {
    pesc::scale_tensors<> scales;
    scales.codes = absmax.data();
    scales.nested_absmax = nested_absmax.data();
    scales.map = nested_map.data();
    scales.offset = nested_offset;
    return {layer_config::weight::info(), packed.data(), scales, rows, cols};
  }
};

// Stands for a file: the bytes that quantising the same weights gives.
bitsandbytes_weight from_file(const std::vector<pesc::bf16>& values, index_t rows, index_t cols) {
  const auto q =
      pesc::quantize<layer_config::weight>(pesc::matrix_view<const pesc::bf16>{values.data(), rows, cols});
  const auto list = [](auto view) { return std::vector(view.begin(), view.end()); };
  return {
      list(q.codes()), list(q.scale_codes()), list(q.nested_absmax()), list(q.map()), q.offset(), rows, cols};
}

std::vector<pesc::bf16> run(backend& ctx, const layer_type& layer) {
  const auto x = weights(tokens * hidden, 9);
  std::vector<pesc::bf16> y(x.size());
  auto buffers = layer.prepare(ctx, tokens);
  layer.forward(ctx, {x.data(), tokens, hidden}, {y.data(), tokens, hidden}, buffers);
  return y;
}

}  // namespace

int main() {
  backend ctx;
  const auto gate = weights(intermediate * hidden, 1);
  const auto up = weights(intermediate * hidden, 2);
  const auto down = weights(hidden * intermediate, 3);
  const pesc::moe_shape shape{.hidden = hidden, .intermediate = intermediate};

  // From pointers to bf16: quantised here, the caller may release them.
  const pesc::dense_ffn<pesc::bf16> dense{{gate.data(), intermediate, hidden},
                                          {up.data(), intermediate, hidden},
                                          {down.data(), hidden, intermediate}};
  const layer_type from_numbers{ctx, shape, dense};

  // From 4-bit bytes: put into the order of the kernels, not quantised again.
  const auto gate4 = from_file(gate, intermediate, hidden);
  const auto up4 = from_file(up, intermediate, hidden);
  const auto down4 = from_file(down, hidden, intermediate);
  const layer_type from_bytes{ctx, shape, {ctx, gate4.view(), up4.view(), down4.view()}};

  // With trainable parameters in the caller's memory: the layer then owns nothing but its sizes.
  const pesc::frozen_ffn<layer_config::weight> frozen(ctx, gate4.view(), up4.view(), down4.view());
  const pesc::moe_shape full = pesc::complete<layer_config>(shape);
  std::vector<float> arena(static_cast<std::size_t>(pesc::moe_trainables<layer_config>::size(full)));
  pesc::parameter_arena<> parts(arena.data(), static_cast<index_t>(arena.size()));
  const auto parameters = pesc::moe_trainables<layer_config>::carve(parts, full);
  parameters.initialize(0);
  const layer_type over_my_memory{shape, frozen.view<pesc::moe_frozen<layer_config>>(), parameters};

  const auto y = run(ctx, from_numbers);
  const bool same_bytes = y == run(ctx, from_bytes);
  const bool same_memory = y == run(ctx, over_my_memory);
  std::printf("frozen weights: %d bytes, trainable parameters: %d floats in the caller's memory\n",
              static_cast<int>(frozen.bytes()), static_cast<int>(arena.size()));
  std::printf("y[0] = %.4f %.4f %.4f %.4f ...\n", static_cast<double>(to_float(y[0])),
              static_cast<double>(to_float(y[1])), static_cast<double>(to_float(y[2])),
              static_cast<double>(to_float(y[3])));
  std::printf("from bitsandbytes bytes: %s\n", same_bytes ? "the same bits" : "DIFFERENT");
  std::printf("over the caller's memory: %s\n", same_memory ? "the same bits" : "DIFFERENT");
  return same_bytes && same_memory ? 0 : 1;
}
