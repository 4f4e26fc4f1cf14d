// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/model/llama.hpp"
#include "support/layer_bridge.hpp"

namespace support {

/// \brief Random frozen weights of a small model.
inline pesc::model_weights<pesc::any_format> random_model(const pesc::llama_shape& shape,
                                                          const pesc::format_info& format, std::uint64_t seed,
                                                          bool tied, bool biases) {
  using pesc::index_t;
  pesc::model_weights<pesc::any_format> w;
  w.shape = shape;
  w.format = format;
  const auto numbers = [&](index_t n, double deviation, double mean = 0) {
    pesc::buffer<float> out(n);
    const auto values = normal_doubles(n, ++seed, deviation);
    for (index_t i = 0; i < n; ++i) out[i] = static_cast<float>(values[static_cast<std::size_t>(i)] + mean);
    return out;
  };
  const auto linear = [&](index_t out, index_t in) {
    auto values = numbers(out * in, 1.0 / std::sqrt(static_cast<double>(in)));
    pesc::owned_linear<pesc::any_format> l;
    l.weight = pack(
        pesc::quantize<pesc::any_format>(format, pesc::matrix_view<const float>(values.data(), out, in)));
    if (biases) l.bias = numbers(out, 0.1);
    return l;
  };
  w.embedding = numbers(shape.vocabulary * shape.hidden, 1.0);
  w.final_norm = numbers(shape.hidden, 0.2, 1.0);
  if (!tied) w.head = numbers(shape.vocabulary * shape.hidden, 0.3);
  for (index_t l = 0; l < shape.layers; ++l) {
    pesc::layer_weights<pesc::any_format> layer;
    layer.input_norm = numbers(shape.hidden, 0.2, 1.0);
    layer.post_norm = numbers(shape.hidden, 0.2, 1.0);
    layer.q = linear(shape.query_width(), shape.hidden);
    layer.k = linear(shape.kv_width(), shape.hidden);
    layer.v = linear(shape.kv_width(), shape.hidden);
    layer.o = linear(shape.hidden, shape.query_width());
    layer.gate = linear(shape.intermediate, shape.hidden);
    layer.up = linear(shape.intermediate, shape.hidden);
    layer.down = linear(shape.hidden, shape.intermediate);
    w.layers.push_back(std::move(layer));
  }
  return w;
}

inline reference::rope_options to_reference(const pesc::rope_options& r) {
  reference::rope_options out;
  out.theta = r.theta;
  out.pairs = r.pairing == pesc::rope_pairing::halves ? reference::rope_pairs::halves
                                                      : reference::rope_pairs::neighbours;
  out.scaling = r.scaling == pesc::rope_scaling::none     ? reference::rope_scaling::none
                : r.scaling == pesc::rope_scaling::linear ? reference::rope_scaling::linear
                                                          : reference::rope_scaling::llama3;
  out.factor = r.factor;
  out.low_frequency_factor = r.low_frequency_factor;
  out.high_frequency_factor = r.high_frequency_factor;
  out.original_positions = r.original_positions;
  return out;
}

/// \brief The reference model with the weights of a library model.
template <class Model>
reference::model to_reference_model(const Model& model) {
  using pesc::index_t;
  reference::model out;
  const auto& w = model.weights();
  const auto& s = w.shape;
  const auto row = [](const pesc::buffer<float>& v) {
    return to_reference(pesc::matrix_view<const float>(v.data(), 1, v.size()));
  };
  out.embedding = to_reference(w.embedding_view());
  out.final_norm = row(w.final_norm);
  if (w.head.size() != 0) out.head = to_reference(w.head_view());
  out.norm_epsilon = static_cast<double>(s.rms_epsilon);
  const index_t rank = model.ffn_shape().lora_rank;
  const double scale =
      rank > 0 ? static_cast<double>(model.options().lora_alpha) / static_cast<double>(rank) : 0.0;
  for (index_t l = 0; l < s.layers; ++l) {
    const auto& layer = w.layers[static_cast<std::size_t>(l)];
    const auto& p = model.parameters()[static_cast<std::size_t>(l)];
    reference::block block;
    block.input_norm = row(layer.input_norm);
    block.post_norm = row(layer.post_norm);
    block.attend = {to_reference(layer.q.view(), p.attention.q, scale),
                    to_reference(layer.k.view(), p.attention.k, scale),
                    to_reference(layer.v.view(), p.attention.v, scale),
                    to_reference(layer.o.view(), p.attention.o, scale),
                    s.heads,
                    s.kv_heads,
                    s.head_dim,
                    to_reference(s.rope)};
    struct {
      pesc::frozen_linear<pesc::any_format> gate, up, down;
    } frozen{layer.gate.view(), layer.up.view(), layer.down.view()};
    if constexpr (Model::config_routed()) {
      block.mlp.ffn = reference_ffn(frozen, p.ffn.shared, model.ffn_shape(), model.options(), {}, 0);
      block.mlp.router.weight = to_reference(p.ffn.router.weight);
      for (index_t e = 0; e < model.ffn_shape().experts; ++e)
        block.mlp.experts.push_back({to_reference(p.ffn.experts.down[e]), to_reference(p.ffn.experts.up[e])});
      block.mlp.expert_scale = static_cast<double>(model.options().expert_scale);
      block.mlp.routing.top_k = model.ffn_shape().top_k;
    } else {
      block.mlp.ffn = reference_ffn(frozen, p.ffn, model.ffn_shape(), model.options(), {}, 0);
    }
    out.blocks.push_back(block);
  }
  return out;
}

}  // namespace support
