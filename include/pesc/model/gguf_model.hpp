// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pesc/io/gguf.hpp"
#include "pesc/model/config.hpp"
#include "pesc/model/missing_tensors.hpp"
#include "pesc/model/tensor_names.hpp"
#include "pesc/nn/rope.hpp"

// A Llama-type model in a GGUF file: its keys as a configuration, its tensors under Hugging Face names.

namespace pesc {
namespace detail {

/// \brief Refuses architectures and variants that compute something else than the host does.
inline void refuse_other_gguf(const json_fields& f) {
  const std::string architecture = f.get_string("general.architecture");
  if (architecture != "llama") unsupported(f, "general.architecture", in_quotes(architecture), "llama.");
  if (const index_t experts = f.get_int("llama.expert_count", 0); experts > 0)
    unsupported(f, "llama.expert_count", concat("a model of ", experts, " feed-forward networks"), "0.");
  if (const index_t window = f.get_int("llama.attention.sliding_window", 0);
      window > 0 && window < f.get_int("llama.context_length", 0))
    unsupported(f, "llama.attention.sliding_window", concat("a window of ", window), "full attention.");
}

/// \brief Recovers the constants of the llama3 stretch from its divisors, one per pair, which is all that GGUF files keep.
///
/// The outermost divisor is the factor; the other constants are those of every published model of the kind, and the
/// divisors have to be what follows from them.
inline void find_llama3_scaling(const gguf_file& file, const tensor_info& divisors, index_t head_dim,
                                rope_options& rope) {
  const std::vector<float> stored = to_floats(divisors, file.name());
  const std::string where = concat(file.name(), ": tensor ", in_quotes(divisors.name));
  if (static_cast<index_t>(stored.size()) != head_dim / 2)
    raise<format_error>(concat(where, " has ", stored.size(), " entries, expected ", head_dim / 2));
  std::vector<float> plain(stored.size()), stretched(stored.size());
  const auto view = [](std::vector<float>& v) {
    return vector_view<float>{v.data(), static_cast<index_t>(v.size())};
  };
  rope.scaling = rope_scaling::none;
  rope_frequencies(rope, head_dim, view(plain));
  rope.scaling = rope_scaling::llama3;
  rope.factor = static_cast<double>(stored.back());
  if (!(rope.factor >= 1.0 && rope.factor < 1e6))
    raise<format_error>(concat(where, " ends with ", rope.factor, ", expected a factor of at least 1"));
  rope_frequencies(rope, head_dim, view(stretched));
  for (std::size_t i = 0; i < stored.size(); ++i) {
    const float expected = plain[i] / stretched[i];
    if (!(std::fabs(stored[i] - expected) <= 1e-3f * expected))
      raise<format_error>(
          concat(where, " is ", stored[i], " at entry ", i, ", expected ", expected,
                 ": rotary frequencies that are not stretched as llama3 does (factors 1 and 4 of 8192 "
                 "positions) are not supported; results would be wrong"));
  }
}

inline rope_options gguf_rope(const gguf_file& file, index_t head_dim) {
  const json_fields f = file.fields();
  rope_options out;
  out.pairing = rope_pairing::neighbours;
  out.theta = positive_number(f, "llama.rope.freq_base", out.theta);
  const index_t turned = positive(f, "llama.rope.dimension_count", head_dim, index_t{1} << 16);
  if (turned != head_dim)
    unsupported(f, "llama.rope.dimension_count", concat(turned, " of ", head_dim, " elements of a head"),
                "all of them.");
  const std::string kind = f.get_string("llama.rope.scaling.type", "none");
  if (kind == "linear") {
    out.scaling = rope_scaling::linear;
    out.factor = positive_number(f, "llama.rope.scaling.factor", 1.0);
  } else if (kind != "none") {
    unsupported(f, "llama.rope.scaling.type", in_quotes(kind), "none, linear.");
  }
  if (const tensor_info* divisors = file.find("rope_freqs.weight")) {
    if (kind == "linear")
      raise<format_error>(f.where("llama.rope.scaling.type") +
                          " is \"linear\" beside a tensor \"rope_freqs.weight\"");
    find_llama3_scaling(file, *divisors, head_dim, out);
  }
  return out;
}

inline std::int32_t gguf_token(const json_fields& f, std::string_view key, index_t vocab) {
  const json* id = f.find(key);
  return id == nullptr ? -1 : token_id(f, key, *id, vocab);
}

/// \brief Tensors of a layer: their names in the file behind "blk.N.", and in Hugging Face files behind "model.layers.N.".
inline constexpr std::pair<std::string_view, std::string_view> gguf_layer_names[] = {
    {"attn_norm", "input_layernorm"},    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},      {"attn_v", "self_attn.v_proj"},
    {"attn_output", "self_attn.o_proj"}, {"ffn_norm", "post_attention_layernorm"},
    {"ffn_gate", "mlp.gate_proj"},       {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"}};

/// \brief The Hugging Face name of a tensor; the name itself where it has none.
inline std::string name_from_gguf(const std::string& name) {
  constexpr std::pair<std::string_view, std::string_view> whole[] = {
      {"token_embd.weight", "model.embed_tokens.weight"},
      {"output_norm.weight", "model.norm.weight"},
      {"output.weight", "lm_head.weight"}};
  for (const auto& [theirs, ours] : whole)
    if (name == theirs) return std::string{ours};
  if (!name.starts_with("blk.")) return name;
  const std::size_t dot = name.find('.', 4);
  const std::size_t last = name.rfind('.');
  if (dot == name.npos || last <= dot) return name;
  const std::string_view part = std::string_view{name}.substr(dot + 1, last - dot - 1);
  for (const auto& [theirs, ours] : gguf_layer_names)
    if (part == theirs)
      return "model.layers." + name.substr(4, dot - 3) + std::string{ours} + name.substr(last);
  return name;
}

}  // namespace detail

/// \brief The configuration that the keys of a GGUF file describe.
/// \throws format_error, also for architectures and variants that are not supported
[[nodiscard]] inline model_config config_of(const gguf_file& file) {
  const json_fields f = file.fields();
  detail::refuse_other_gguf(f);
  model_config out;
  llama_config& c = out.llama;
  constexpr index_t most = index_t{1} << 16;
  c.hidden = detail::positive(f, "llama.embedding_length", 0, index_t{1} << 24);
  c.intermediate = detail::positive(f, "llama.feed_forward_length", 0, index_t{1} << 26);
  c.layers = detail::positive(f, "llama.block_count", 0, most);
  c.max_positions =
      detail::positive(f, "llama.context_length", c.max_positions, std::numeric_limits<std::int32_t>::max());
  c.heads = detail::positive(f, "llama.attention.head_count", 0, most);
  c.kv_heads = detail::positive(f, "llama.attention.head_count_kv", c.heads, most);
  if (c.heads % c.kv_heads != 0)
    detail::refuse(f, "llama.attention.head_count_kv", std::to_string(c.kv_heads),
                   detail::concat("a divisor of llama.attention.head_count ", c.heads));
  if (!f.has("llama.attention.key_length") && c.hidden % c.heads != 0)
    detail::refuse(f, "llama.attention.head_count", std::to_string(c.heads),
                   detail::concat("a divisor of llama.embedding_length ", c.hidden));
  c.head_dim = detail::positive(f, "llama.attention.key_length", c.hidden / c.heads, most);
  if (const index_t value = f.get_int("llama.attention.value_length", c.head_dim); value != c.head_dim)
    detail::unsupported(f, "llama.attention.value_length", detail::concat(value, " for keys of ", c.head_dim),
                        "keys and values of one size.");
  if (c.head_dim % 2 != 0)
    detail::refuse(f, "llama.attention.key_length", std::to_string(c.head_dim), "an even number");
  c.rms_eps = detail::positive_number(f, "llama.attention.layer_norm_rms_epsilon", c.rms_eps);
  c.rope = detail::gguf_rope(file, c.head_dim);
  const auto lists = file.lists();
  const auto tokens = lists.find("tokenizer.ggml.tokens");
  c.vocab =
      detail::positive(f, "llama.vocab_size", tokens != lists.end() ? tokens->second : 0, index_t{1} << 28);
  c.tie_embeddings = file.find("output.weight") == nullptr;
  c.attention_bias = file.find("blk.0.attn_q.bias") != nullptr;
  c.mlp_bias = file.find("blk.0.ffn_gate.bias") != nullptr;
  c.bos = detail::gguf_token(f, "tokenizer.ggml.bos_token_id", c.vocab);
  c.eos.clear();
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"})
    if (const std::int32_t id = detail::gguf_token(f, key, c.vocab);
        id >= 0 && std::find(c.eos.begin(), c.eos.end(), id) == c.eos.end())
      c.eos.push_back(id);
  return out;
}

/// \brief The tensors of a GGUF file under Hugging Face names; rows of queries and keys stay in the order of rotary
/// neighbours.
/// \throws format_error for a projection of a type that is not read
[[nodiscard]] inline std::vector<tensor_info> named_tensors(const gguf_file& file) {
  std::vector<tensor_info> out;
  for (const tensor_info& tensor : file.tensors()) {
    if (tensor.name == "rope_freqs.weight") continue;  // part of the configuration
    if (tensor.dtype == element_type::unknown)
      detail::raise<format_error>(detail::concat(file.name(), ": tensor ", in_quotes(tensor.name), " is ",
                                                 tensor.dtype_name,
                                                 ", which is not read. Supported: F32, F16, BF16, Q8_0, "
                                                 "Q4_0, Q4_1. Take the model in one of these."));
    out.push_back(tensor);
    out.back().name = detail::name_from_gguf(tensor.name);
  }
  return out;
}

}  // namespace pesc
