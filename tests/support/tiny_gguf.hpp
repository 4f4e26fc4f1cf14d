// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/gguf_builder.hpp"
#include "support/tiny_model.hpp"

namespace support {

/// \brief The keys of a Llama model in a GGUF file; the vocabulary's size is told by its key.
inline gguf_builder gguf_keys(const pesc::llama_config& c, std::string_view architecture = "llama") {
  const auto n = [](pesc::index_t x) { return static_cast<std::uint32_t>(x); };
  gguf_builder out;
  out.string("general.architecture", architecture)
      .u32("llama.embedding_length", n(c.hidden))
      .u32("llama.feed_forward_length", n(c.intermediate))
      .u32("llama.block_count", n(c.layers))
      .u32("llama.context_length", n(c.max_positions))
      .u32("llama.attention.head_count", n(c.heads))
      .u32("llama.attention.head_count_kv", n(c.kv_heads))
      .f32("llama.attention.layer_norm_rms_epsilon", static_cast<float>(c.rms_eps))
      .f32("llama.rope.freq_base", static_cast<float>(c.rope.theta))
      .u32("llama.vocab_size", n(c.vocab));
  return out;
}

/// \brief Rows in the order in which GGUF files keep queries and keys: row i of a head at 2i, row i + size / 2 at 2i + 1.
inline std::vector<float> neighbouring_rows(const tiny_tensor& from, pesc::index_t head_dim) {
  const std::size_t cols = from.shape.size() > 1 ? static_cast<std::size_t>(from.shape[1]) : 1;
  const auto size = static_cast<std::size_t>(head_dim);
  std::vector<float> out(from.values.size());
  for (std::size_t row = 0; row < static_cast<std::size_t>(from.shape[0]); ++row) {
    const std::size_t i = row % size;
    const std::size_t to = row - i + (i < size / 2 ? 2 * i : 2 * (i - size / 2) + 1);
    for (std::size_t k = 0; k < cols; ++k) out[to * cols + k] = from.values[row * cols + k];
  }
  return out;
}

/// \brief The name in a GGUF file of a tensor with a Hugging Face name.
inline std::string gguf_name(const std::string& name) {
  if (name == "model.embed_tokens.weight") return "token_embd.weight";
  if (name == "model.norm.weight") return "output_norm.weight";
  if (name == "lm_head.weight") return "output.weight";
  constexpr std::pair<std::string_view, std::string_view> parts[] = {
      {"input_layernorm", "attn_norm"},    {"self_attn.q_proj", "attn_q"},
      {"self_attn.k_proj", "attn_k"},      {"self_attn.v_proj", "attn_v"},
      {"self_attn.o_proj", "attn_output"}, {"post_attention_layernorm", "ffn_norm"},
      {"mlp.gate_proj", "ffn_gate"},       {"mlp.up_proj", "ffn_up"},
      {"mlp.down_proj", "ffn_down"}};
  const std::string rest = name.substr(13);  // behind "model.layers."
  const std::size_t dot = rest.find('.');
  for (const auto& [ours, theirs] : parts)
    if (rest.compare(dot + 1, ours.size(), ours) == 0)
      return "blk." + rest.substr(0, dot + 1) + std::string{theirs} + rest.substr(dot + 1 + ours.size());
  return name;
}

/// \brief A shape as GGUF files have it, innermost first.
inline std::vector<std::uint64_t> gguf_dims(const std::vector<pesc::index_t>& shape) {
  return {shape.rbegin(), shape.rend()};
}

/// \brief Adds the tensors as floats.
inline gguf_builder& add_tensors(gguf_builder& out, const pesc::llama_config& c,
                                 const tiny_tensors& tensors) {
  for (const auto& [name, tensor] : tensors) {
    const bool turned = name.find("q_proj") != name.npos || name.find("k_proj") != name.npos;
    out.floats(gguf_name(name), gguf_dims(tensor.shape),
               turned ? neighbouring_rows(tensor, c.head_dim) : tensor.values);
  }
  return out;
}

}  // namespace support
