// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "pesc/core/views.hpp"
#include "pesc/model/config.hpp"

// Names of tensors in checkpoints: those of Llama files, the router and adapters as Camelidae files have
// them, and the pairs of LoRA under the same scheme (PEFT files put "base_model.model." in front).

namespace pesc {

/// \brief "model.layers.3."
[[nodiscard]] inline std::string layer_prefix(index_t layer) {
  return "model.layers." + std::to_string(layer) + '.';
}

/// \brief Which file of a checkpoint holds a trainable tensor: the model's, or the one of low-rank updates.
enum class trainable_kind { expert_path, low_rank };

namespace detail {

inline bool is_low_rank(std::string_view name) {
  return name.ends_with("lora_A") || name.ends_with("lora_B");
}

/// \brief Name of a tensor of a layer's sparse part: one of expert `e`, or of the router.
inline std::string expert_path_name(const std::string& prefix, const std::string& name, index_t e,
                                    bool per_expert) {
  const std::string base = prefix + "mlp.moe_adapter.";
  return per_expert ? base + "experts.expert_" + std::to_string(e) + '.' + name + ".weight"
                    : base + name + ".weight";
}

}  // namespace detail

/// \brief Calls `f(name, kind, matrix)` for every trainable matrix of a model, experts one by one.
///
/// \param layers  a model's `parameters()`, or views of the same layout over gradients or moments
template <class Layers, class F>
void for_each_trainable(const Layers& layers, F&& f) {
  for (std::size_t l = 0; l < layers.size(); ++l) {
    const std::string prefix = layer_prefix(static_cast<index_t>(l));
    layers[l].attention.for_each([&](const std::string& name, const auto& tensor) {
      f(prefix + "self_attn." + name + ".weight", trainable_kind::low_rank, tensor[0]);
    });
    layers[l].ffn.for_each([&](const std::string& name, const auto& tensor) {
      if (detail::is_low_rank(name))
        return f(prefix + "mlp." + name + ".weight", trainable_kind::low_rank, tensor[0]);
      const bool per_expert = name.starts_with("adapter_") || tensor.count > 1;
      for (index_t e = 0; e < tensor.count; ++e)
        f(detail::expert_path_name(prefix, name, e, per_expert), trainable_kind::expert_path, tensor[e]);
    });
  }
}

/// \brief The name that files of the Sparsetral family use for a tensor of an expert: "experts.3." for
/// "experts.expert_3.".
[[nodiscard]] inline std::string without_expert_word(std::string name) {
  const std::size_t at = name.find(".experts.expert_");
  return at == name.npos ? name : name.erase(at + 9, 7);
}

/// \brief Calls `f(name, rows, cols)` for every frozen tensor that a configuration asks for; vectors have
/// `cols` 0.
template <class F>
void for_each_frozen(const llama_config& c, F&& f) {
  const index_t query = c.heads * c.head_dim;
  const index_t kv = c.kv_heads * c.head_dim;
  f(std::string{"model.embed_tokens.weight"}, c.vocab, c.hidden);
  f(std::string{"model.norm.weight"}, c.hidden, index_t{0});
  if (!c.tie_embeddings) f(std::string{"lm_head.weight"}, c.vocab, c.hidden);
  struct projection {
    const char* name;
    index_t rows, cols;
    bool bias;
  };
  const projection all[] = {{"self_attn.q_proj", query, c.hidden, c.attention_bias},
                            {"self_attn.k_proj", kv, c.hidden, c.attention_bias},
                            {"self_attn.v_proj", kv, c.hidden, c.attention_bias},
                            {"self_attn.o_proj", c.hidden, query, c.attention_bias},
                            {"mlp.gate_proj", c.intermediate, c.hidden, c.mlp_bias},
                            {"mlp.up_proj", c.intermediate, c.hidden, c.mlp_bias},
                            {"mlp.down_proj", c.hidden, c.intermediate, c.mlp_bias}};
  for (index_t l = 0; l < c.layers; ++l) {
    const std::string prefix = layer_prefix(l);
    f(prefix + "input_layernorm.weight", c.hidden, index_t{0});
    f(prefix + "post_attention_layernorm.weight", c.hidden, index_t{0});
    for (const projection& p : all) {
      f(prefix + p.name + ".weight", p.rows, p.cols);
      if (p.bias) f(prefix + p.name + ".bias", p.rows, index_t{0});
    }
  }
}

/// \brief Calls `f(name, rows, cols)` for every tensor of the sparse part that a configuration asks for.
template <class F>
void for_each_expert_path(const llama_config& c, const pesc_config& p, F&& f) {
  for (index_t l = 0; l < c.layers; ++l) {
    const std::string prefix = layer_prefix(l);
    f(detail::expert_path_name(prefix, "router", 0, false), p.experts, c.hidden);
    for (index_t e = 0; e < p.experts; ++e) {
      f(detail::expert_path_name(prefix, "adapter_down", e, true), p.adapter_dim, c.hidden);
      f(detail::expert_path_name(prefix, "adapter_up", e, true), c.hidden, p.adapter_dim);
    }
  }
}

}  // namespace pesc
