// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "pesc/model/attention_block.hpp"
#include "pesc/quant/quantize.hpp"

namespace pesc {

/// \brief Owns one frozen projection: the packed weight and its optional bias.
template <QuantFormat Format, class Resource = host_resource>
struct owned_linear {
  using space = typename Resource::memory_space;
  quantized_matrix<Format, kernel_layout<space>, Resource> weight;
  buffer<float, Resource> bias;

  [[nodiscard]] frozen_linear<Format, space> view() const { return {weight.view(), bias.view()}; }
  [[nodiscard]] index_t bytes() const { return weight.bytes() + 4 * bias.size(); }
};

/// \brief Owns the frozen tensors of one decoder layer.
template <QuantFormat Format, class Resource = host_resource>
struct layer_weights {
  buffer<float, Resource> input_norm, post_norm;  ///< [H]
  owned_linear<Format, Resource> q, k, v, o;
  owned_linear<Format, Resource> gate, up, down;

  [[nodiscard]] attention_frozen<Format, typename Resource::memory_space> attention() const {
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
template <QuantFormat Format, class Resource = host_resource>
struct model_weights {
  using space = typename Resource::memory_space;
  llama_shape shape;
  format_info format{};
  buffer<float, Resource> embedding;   ///< [V, H]
  buffer<float, Resource> final_norm;  ///< [H]
  buffer<float, Resource> head;        ///< [V, H]; empty: tied to the embedding
  std::vector<layer_weights<Format, Resource>> layers;

  [[nodiscard]] matrix_view<const float, space> embedding_view() const {
    return {embedding.data(), shape.vocabulary, shape.hidden};
  }
  [[nodiscard]] matrix_view<const float, space> head_view() const {
    return {head.size() == 0 ? embedding.data() : head.data(), shape.vocabulary, shape.hidden};
  }

  /// \brief Bytes of all frozen tensors.
  [[nodiscard]] index_t bytes() const {
    index_t total = 4 * (embedding.size() + final_norm.size() + head.size());
    for (const auto& layer : layers) {
      total += 4 * (layer.input_norm.size() + layer.post_norm.size());
      layer_weights<Format, Resource>::for_each_linear(
          layer, [&](const char*, const owned_linear<Format, Resource>& l) { total += l.bytes(); });
    }
    return total;
  }
};

/// \brief A copy of a model's frozen tensors in the memory of a backend, in the order of its kernels.
///
/// The weights stay as they are quantised; one projection at a time is held unpacked.
template <class X, QuantFormat Format>
[[nodiscard]] model_weights<Format, resource_of<X>> to_backend(X& ctx, const model_weights<Format>& from) {
  using resource = resource_of<X>;
  const auto copy_of = [&](const buffer<float>& source) {
    buffer<float, resource> out(source.size());
    upload(ctx, source.view(), out.view());
    return out;
  };
  const auto linear_of = [&](const owned_linear<Format>& source) {
    return owned_linear<Format, resource>{pack(ctx, unpack(source.weight).view()), copy_of(source.bias)};
  };
  model_weights<Format, resource> out{
      from.shape, from.format, copy_of(from.embedding), copy_of(from.final_norm), copy_of(from.head), {}};
  for (const layer_weights<Format>& l : from.layers)
    out.layers.push_back({copy_of(l.input_norm), copy_of(l.post_norm), linear_of(l.q), linear_of(l.k),
                          linear_of(l.v), linear_of(l.o), linear_of(l.gate), linear_of(l.up),
                          linear_of(l.down)});
  return out;
}

}  // namespace pesc
