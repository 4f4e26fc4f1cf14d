// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "pesc/model/attention_block.hpp"
#include "pesc/quant/quantize.hpp"

namespace pesc {

/// \brief Owns one frozen projection: the packed weight and its optional bias.
template <QuantFormat Format>
struct owned_linear {
  quantized_matrix<Format, panels> weight;
  buffer<float> bias;

  [[nodiscard]] frozen_linear<Format> view() const { return {weight.view(), bias.view()}; }
  [[nodiscard]] index_t bytes() const { return weight.bytes() + 4 * bias.size(); }
};

/// \brief Owns the frozen tensors of one decoder layer.
template <QuantFormat Format>
struct layer_weights {
  buffer<float> input_norm, post_norm;  ///< [H]
  owned_linear<Format> q, k, v, o;
  owned_linear<Format> gate, up, down;

  [[nodiscard]] attention_frozen<Format> attention() const {
    return {q.view(), k.view(), v.view(), o.view()};
  }

  /// \brief The projections of the feed-forward network, in the type of its layer.
  template <class Frozen>
  [[nodiscard]] Frozen ffn() const {
    return {gate.view(), up.view(), down.view()};
  }

  /// \brief Calls `f(name, linear)` for the seven projections, with the name that checkpoints use.
  template <class Self, class F>
  static void for_each_linear(Self& self, F&& f) {
    f("self_attn.q_proj", self.q);
    f("self_attn.k_proj", self.k);
    f("self_attn.v_proj", self.v);
    f("self_attn.o_proj", self.o);
    f("mlp.gate_proj", self.gate);
    f("mlp.up_proj", self.up);
    f("mlp.down_proj", self.down);
  }
};

/// \brief Owns all frozen tensors of a model: embedding, norms and head in float, projections in `Format`.
template <QuantFormat Format>
struct model_weights {
  llama_shape shape;
  format_info format{};
  buffer<float> embedding;   ///< [V, H]
  buffer<float> final_norm;  ///< [H]
  buffer<float> head;        ///< [V, H]; empty: tied to the embedding
  std::vector<layer_weights<Format>> layers;

  [[nodiscard]] matrix_view<const float> embedding_view() const {
    return {embedding.data(), shape.vocabulary, shape.hidden};
  }
  [[nodiscard]] matrix_view<const float> head_view() const {
    return {head.size() == 0 ? embedding.data() : head.data(), shape.vocabulary, shape.hidden};
  }

  /// \brief Bytes of all frozen tensors.
  [[nodiscard]] index_t bytes() const {
    index_t total = 4 * (embedding.size() + final_norm.size() + head.size());
    for (const auto& layer : layers) {
      total += 4 * (layer.input_norm.size() + layer.post_norm.size());
      layer_weights<Format>::for_each_linear(
          layer, [&](const char*, const owned_linear<Format>& l) { total += l.bytes(); });
    }
    return total;
  }
};

}  // namespace pesc
