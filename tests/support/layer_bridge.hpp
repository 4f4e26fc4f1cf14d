// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "pesc/pesc.hpp"
#include "support/near.hpp"
#include "support/random.hpp"
#include "support/reference.hpp"

namespace support {

/// \brief A view of the library as a matrix of the reference.
inline reference::matrix to_reference(pesc::matrix_view<const float> m) {
  reference::matrix out(m.rows, m.cols);
  for (pesc::index_t i = 0; i < m.rows; ++i)
    for (pesc::index_t j = 0; j < m.cols; ++j) out(i, j) = static_cast<double>(m(i, j));
  return out;
}
inline reference::matrix to_reference(pesc::matrix_view<float> m) { return to_reference(pesc::as_const(m)); }

/// \brief The weights that a packed matrix stands for.
template <class Format>
reference::matrix to_reference(const pesc::quantized_view<Format, pesc::panels>& w) {
  pesc::cpu::context<pesc::cpu::inline_executor> ctx(pesc::cpu::isa::scalar);
  pesc::buffer<float> values(w.rows * w.cols);
  if (!w.empty()) dequantize(ctx, w, values.matrix(w.rows, w.cols));
  return to_reference(values.matrix(w.rows, w.cols));
}

/// \brief A frozen projection with its low-rank update; `mask` are dropout factors of the input or absent.
template <class Format>
reference::linear to_reference(const pesc::frozen_linear<Format>& w, const pesc::lora_parameters<>& p,
                               double scale, const reference::matrix& mask = {}) {
  reference::linear out;
  out.weight = to_reference(w.weight);
  if (!w.bias.empty()) out.bias = to_reference(pesc::matrix_view<const float>(w.bias.data, 1, w.bias.size));
  if (p.rank() > 0) out.adapter = {to_reference(p.a), to_reference(p.b), scale, mask};
  return out;
}

/// \brief Dropout factors of a stream, as the library draws them.
inline reference::matrix dropout_factors(const pesc::random_stream& stream, pesc::index_t rows,
                                         pesc::index_t cols, float p) {
  reference::matrix mask(rows, cols);
  for (pesc::index_t i = 0; i < rows; ++i)
    for (pesc::index_t j = 0; j < cols; ++j)
      mask(i, j) = stream.uniform(static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(j)) >= p
                       ? 1.0 / (1.0 - static_cast<double>(p))
                       : 0.0;
  return mask;
}

inline reference::gated_ffn reference_ffn(const auto& frozen, const auto& lora, const pesc::moe_shape& shape,
                                          const pesc::moe_options& options, const pesc::moe_run& run,
                                          pesc::index_t tokens) {
  const double scale = shape.lora_rank > 0
                           ? static_cast<double>(options.lora_alpha) / static_cast<double>(shape.lora_rank)
                           : 0.0;
  const auto mask = [&](std::uint8_t part, pesc::index_t cols) {
    if (!run.training || options.lora_dropout <= 0.0f || shape.lora_rank == 0) return reference::matrix{};
    return dropout_factors(run.stream(pesc::random_site::lora_dropout, part), tokens, cols,
                           options.lora_dropout);
  };
  reference::gated_ffn out;
  out.gate = to_reference(frozen.gate, lora.gate, scale, mask(0, shape.hidden));
  out.up = to_reference(frozen.up, lora.up, scale, mask(1, shape.hidden));
  out.down = to_reference(frozen.down, lora.down, scale, mask(2, shape.intermediate));
  return out;
}

/// \brief The reference layer with the weights of a library layer.
template <class Layer>
reference::moe_layer to_reference(const Layer& layer, const pesc::moe_run& run = {},
                                  pesc::index_t tokens = 0) {
  reference::moe_layer out;
  const auto& shape = layer.shape();
  out.ffn = reference_ffn(layer.weights(), layer.parameters().shared, shape, layer.options(), run, tokens);
  out.router.weight = to_reference(layer.parameters().router.weight);
  for (pesc::index_t e = 0; e < shape.experts; ++e)
    out.experts.push_back(
        {to_reference(layer.parameters().experts.down[e]), to_reference(layer.parameters().experts.up[e])});
  out.expert_scale = static_cast<double>(layer.options().expert_scale);
  out.routing.top_k = shape.top_k;
  out.shared = Layer::router::residual == pesc::residual_kind::one ? reference::residual::one
                                                                   : reference::residual::gate_sum;
  return out;
}

/// \brief Fills every trainable tensor with small normal numbers, so that no gradient is zero by construction.
template <class Trainables>
void randomize(const Trainables& p, std::uint64_t seed, double deviation = 0.2) {
  p.for_each([&](const std::string&, pesc::batch_view<float> tensor) {
    const std::vector<float> values = normal_floats(tensor.size(), ++seed, deviation);
    std::copy(values.begin(), values.end(), tensor.data);
  });
}

/// \brief max |a - b| / max |b| of a view against a matrix of the reference.
inline near_result near(pesc::matrix_view<const float> actual, const reference::matrix& expected,
                        double tolerance, double smallest_scale = 0) {
  return near(to_reference(actual).values, expected.values, tolerance, smallest_scale);
}
inline near_result near(pesc::matrix_view<float> actual, const reference::matrix& expected, double tolerance,
                        double smallest_scale = 0) {
  return near(pesc::as_const(actual), expected, tolerance, smallest_scale);
}

}  // namespace support
