// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pesc/core/types.hpp"
#include "pesc/io/json.hpp"
#include "pesc/io/llama2c.hpp"
#include "pesc/nn/rope.hpp"

namespace pesc {

/// \brief Sizes and constants of a Llama-type model, named as in its paper and code.
struct llama_config {
  index_t vocab = 32000;
  index_t hidden = 4096;
  index_t intermediate = 11008;
  index_t layers = 32;
  index_t heads = 32;
  index_t kv_heads = 32;  ///< query head h reads key and value head h / (heads / kv_heads)
  index_t head_dim = 128;
  double rms_eps = 1e-6;
  index_t max_positions = 2048;
  rope_options rope;
  bool attention_bias = false;  ///< on query, key, value and output
  bool mlp_bias = false;
  bool tie_embeddings = false;
  std::int32_t bos = 1;                 ///< -1: there is none
  std::vector<std::int32_t> eos = {2};  ///< any of them ends a text; the first one is written
  std::string activation = "silu";
};

/// \brief The sparse part of a crafted model: what the Camelidae configuration adds.
struct pesc_config {
  index_t experts = 8;
  index_t top_k = 1;
  index_t adapter_dim = 64;
  double moe_scaling = 0.25;  ///< factor on an adapter's output
  bool output_router_logits = true;
};

/// \brief How bitsandbytes stored the linear weights of a checkpoint.
struct quantization_config {
  std::string quant_type = "fp4";  ///< "nf4" or "fp4"
  bool double_quant = false;
  std::string compute_dtype = "float32";
  std::string quant_storage = "uint8";
};

/// \brief All that config.json says.
struct model_config {
  llama_config llama;
  std::optional<pesc_config> pesc;
  std::optional<quantization_config> quantization;
  std::string dtype;  ///< of the stored weights, "bfloat16"; may be empty
};

namespace detail {

[[noreturn]] inline void refuse(const json_fields& f, std::string_view key, const std::string& found,
                                std::string_view expected) {
  raise<format_error>(concat(f.where(key), " is ", found, ", expected ", expected));
}

[[noreturn]] inline void unsupported(const json_fields& f, std::string_view key, const std::string& found,
                                     std::string_view supported) {
  raise<format_error>(
      concat(f.where(key), ": ", found, " is not supported; results would be wrong. Supported: ", supported));
}

/// \brief An integer in [1, most]; `otherwise` when the key is absent, which 0 forbids.
inline index_t positive(const json_fields& f, std::string_view key, index_t otherwise, index_t most) {
  const index_t value = otherwise > 0 ? f.get_int(key, otherwise) : f.get_int(key);
  if (value < 1 || value > most) refuse(f, key, std::to_string(value), concat("1 to ", most));
  return value;
}

/// \brief A finite number above zero.
inline double positive_number(const json_fields& f, std::string_view key, double otherwise) {
  const double value = f.get_double(key, otherwise);
  if (!(value > 0 && value <= 1e30)) refuse(f, key, concat(value), "a number above 0");
  return value;
}

inline std::int32_t token_id(const json_fields& f, std::string_view key, const json& value, index_t vocab) {
  const auto id = value.to_int();
  if (!id) f.wrong_type(key, value, "an integer");
  if (*id < 0 || *id >= vocab) refuse(f, key, std::to_string(*id), concat("an id from 0 to ", vocab - 1));
  return static_cast<std::int32_t>(*id);
}

inline void parse_rope_scaling(const json_fields& f, rope_options& out) {
  const std::string old = f.get_string("type", "default");
  const std::string kind = f.get_string("rope_type", old);
  if (kind == "default") return;
  const char* supported = "default, linear, llama3.";
  if (kind == "linear") {
    out.scaling = rope_scaling::linear;
    out.factor = f.get_double("factor");
    static_cast<void>(positive_number(f, "factor", 1.0));
    return;
  }
  if (kind != "llama3") unsupported(f, f.has("rope_type") ? "rope_type" : "type", in_quotes(kind), supported);
  out.scaling = rope_scaling::llama3;
  for (const char* key : {"factor", "low_freq_factor", "high_freq_factor"})
    static_cast<void>(f.get_double(key));
  out.factor = positive_number(f, "factor", 1.0);
  out.low_frequency_factor = positive_number(f, "low_freq_factor", 1.0);
  out.high_frequency_factor = positive_number(f, "high_freq_factor", 4.0);
  out.original_positions = static_cast<double>(
      positive(f, "original_max_position_embeddings", 0, std::numeric_limits<std::int32_t>::max()));
  if (!(out.high_frequency_factor > out.low_frequency_factor))
    refuse(f, "high_freq_factor", concat(out.high_frequency_factor),
           concat("more than low_freq_factor ", out.low_frequency_factor));
}

inline rope_pairing parse_pairing(const json_fields& f) {
  const std::string pairing = f.get_string("pesc_rope_pairing", "halves");
  if (pairing != "halves" && pairing != "neighbours")
    refuse(f, "pesc_rope_pairing", in_quotes(pairing), "\"halves\" or \"neighbours\"");
  return pairing == "halves" ? rope_pairing::halves : rope_pairing::neighbours;
}

/// \brief Both spellings: `rope_theta` beside `rope_scaling`, or both inside `rope_parameters`.
inline rope_options parse_rope(const json_fields& f) {
  rope_options out;
  out.theta = positive_number(f, "rope_theta", out.theta);
  if (f.has("rope_parameters")) {
    const json_fields inner = f.get_object("rope_parameters");
    if (!f.has("rope_theta") && !inner.has("rope_theta"))
      raise<format_error>(inner.where("rope_theta") + " is missing, expected a number");
    out.theta = positive_number(inner, "rope_theta", out.theta);
    if (inner.get_double("partial_rotary_factor", 1.0) != 1.0)
      unsupported(inner, "partial_rotary_factor", concat(inner.get_double("partial_rotary_factor")), "1");
    parse_rope_scaling(inner, out);
  } else if (f.has("rope_scaling")) {
    parse_rope_scaling(f.get_object("rope_scaling"), out);
  }
  if (f.get_double("partial_rotary_factor", 1.0) != 1.0)
    unsupported(f, "partial_rotary_factor", concat(f.get_double("partial_rotary_factor")), "1");
  out.pairing = parse_pairing(f);
  return out;
}

inline void parse_special_ids(const json_fields& f, llama_config& out) {
  if (const json* bos = f.find("bos_token_id"))
    out.bos = token_id(f, "bos_token_id", *bos, out.vocab);
  else if (f.is_null("bos_token_id") || out.vocab <= out.bos)
    out.bos = -1;
  if (const json* eos = f.find("eos_token_id")) {
    out.eos.clear();
    if (eos->is_array())
      for (const json& id : eos->items()) out.eos.push_back(token_id(f, "eos_token_id", id, out.vocab));
    else
      out.eos.push_back(token_id(f, "eos_token_id", *eos, out.vocab));
  } else if (f.is_null("eos_token_id") || out.vocab <= out.eos[0]) {
    out.eos.clear();
  }
}

inline void parse_heads(const json_fields& f, llama_config& out) {
  constexpr index_t most = index_t{1} << 16;
  out.heads = positive(f, "num_attention_heads", 0, most);
  out.kv_heads = positive(f, "num_key_value_heads", out.heads, most);
  if (out.heads % out.kv_heads != 0)
    refuse(f, "num_key_value_heads", std::to_string(out.kv_heads),
           concat("a divisor of num_attention_heads ", out.heads));
  if (!f.has("head_dim") && out.hidden % out.heads != 0)
    refuse(f, "num_attention_heads", std::to_string(out.heads),
           concat("a divisor of hidden_size ", out.hidden, ", or a head_dim"));
  out.head_dim = positive(f, "head_dim", out.hidden / out.heads, most);
  if (out.head_dim % 2 != 0)
    raise<format_error>(concat(f.file(), ": the head size is ", out.head_dim,
                               ", expected an even number for rotary positions"));
}

/// \brief Refuses by name what would change the results and is not computed here.
inline void refuse_other_models(const json_fields& f, const llama_config& c) {
  const std::string type = f.get_string("model_type", "llama");
  if (type != "llama" && type != "mistral" && type != "sparsetral")
    unsupported(f, "model_type", in_quotes(type), "llama, mistral, sparsetral.");
  if (c.activation != "silu" && c.activation != "swish")
    unsupported(f, "hidden_act", in_quotes(c.activation), "silu.");
  const index_t window = f.get_int("sliding_window", 0);
  if (window > 0 && window < c.max_positions && f.get_bool("use_sliding_window", true))
    unsupported(f, "sliding_window", concat("a window of ", window),
                "full attention, or a window of at least "
                "max_position_embeddings.");
}

inline std::optional<pesc_config> parse_pesc(const json_fields& f) {
  const bool sparsetral = f.get_string("model_type", "llama") == "sparsetral";
  if (!sparsetral && !f.has("adapter_dim") && !(f.has("num_experts") && f.has("topk"))) return {};
  pesc_config out;
  if (sparsetral) out = {16, 4, 64, 1.0, false};
  out.experts = positive(f, "num_experts", out.experts, 65536);
  out.top_k = positive(f, "topk", out.top_k, 65536);
  out.adapter_dim = positive(f, "adapter_dim", out.adapter_dim, index_t{1} << 24);
  if (out.top_k > out.experts)
    refuse(f, "topk", std::to_string(out.top_k), concat("at most num_experts ", out.experts));
  out.moe_scaling = f.get_double("moe_scaling", out.moe_scaling);
  if (!(out.moe_scaling > -1e30 && out.moe_scaling < 1e30))
    refuse(f, "moe_scaling", concat(out.moe_scaling), "a finite number");
  out.output_router_logits = f.get_bool("output_router_logits", out.output_router_logits);
  return out;
}

inline std::optional<quantization_config> parse_quantization(const json_fields& outer) {
  if (!outer.has("quantization_config")) return {};
  const json_fields f = outer.get_object("quantization_config");
  const std::string method = f.get_string("quant_method", "bitsandbytes");
  if (method != "bitsandbytes") unsupported(f, "quant_method", in_quotes(method), "bitsandbytes.");
  if (!f.get_bool("load_in_4bit", false)) {
    if (!f.get_bool("load_in_8bit", false)) return {};
    unsupported(f, "load_in_8bit", "8-bit storage", "load_in_4bit.");
  }
  quantization_config out;
  out.quant_type = f.get_string("bnb_4bit_quant_type", out.quant_type);
  if (out.quant_type != "nf4" && out.quant_type != "fp4")
    unsupported(f, "bnb_4bit_quant_type", in_quotes(out.quant_type), "nf4, fp4.");
  out.double_quant = f.get_bool("bnb_4bit_use_double_quant", false);
  out.compute_dtype = f.get_string("bnb_4bit_compute_dtype", out.compute_dtype);
  out.quant_storage = f.get_string("bnb_4bit_quant_storage", out.quant_storage);
  return out;
}

}  // namespace detail

/// \brief Reads the keys of a Hugging Face config.json, in the old and the new spelling, and checks them all.
///
/// Whether the model is sparse is told by `adapter_dim`, `num_experts` and `topk`, never by `model_type`, which
/// published sparse models leave at "llama". The five sizes must be there; other absent keys take the defaults of the
/// published code.
/// \param file  name for messages
/// \throws format_error
[[nodiscard]] inline model_config parse_config(const json& text, const std::string& file) {
  const json_fields f{text, file};
  model_config out;
  llama_config& c = out.llama;
  c.vocab = detail::positive(f, "vocab_size", 0, index_t{1} << 28);
  c.hidden = detail::positive(f, "hidden_size", 0, index_t{1} << 24);
  c.intermediate = detail::positive(f, "intermediate_size", 0, index_t{1} << 26);
  c.layers = detail::positive(f, "num_hidden_layers", 0, index_t{1} << 16);
  c.max_positions = detail::positive(f, "max_position_embeddings", c.max_positions,
                                     std::numeric_limits<std::int32_t>::max());
  c.rms_eps = detail::positive_number(f, "rms_norm_eps", c.rms_eps);
  detail::parse_heads(f, c);
  c.rope = detail::parse_rope(f);
  c.attention_bias = f.get_bool("attention_bias", false);
  c.mlp_bias = f.get_bool("mlp_bias", false);
  c.tie_embeddings = f.get_bool("tie_word_embeddings", false);
  c.activation = f.get_string("hidden_act", c.activation);
  detail::parse_special_ids(f, c);
  detail::refuse_other_models(f, c);
  out.pesc = detail::parse_pesc(f);
  out.quantization = detail::parse_quantization(f);
  out.dtype = f.get_string("dtype", f.get_string("torch_dtype", ""));
  return out;
}

/// \brief The configuration as config.json has it, in the spelling that old and new readers know.
[[nodiscard]] json to_json(const model_config& config);

/// \brief What a llama2.c file implies: eps 1e-5, theta 10000, pairs of neighbours. Its texts end with the start mark.
[[nodiscard]] inline llama_config config_of(const llama2c_header& header) {
  llama_config out;
  out.vocab = header.vocab;
  out.hidden = header.hidden;
  out.intermediate = header.intermediate;
  out.layers = header.layers;
  out.heads = header.heads;
  out.kv_heads = header.kv_heads;
  out.head_dim = header.head_dim();
  out.rms_eps = 1e-5;
  out.max_positions = header.max_positions;
  out.rope.pairing = rope_pairing::neighbours;
  out.tie_embeddings = header.tied;
  out.bos = 1;
  out.eos = {1, 2};
  return out;
}

namespace detail {

inline json rope_scaling_json(const rope_options& rope) {
  if (rope.scaling == rope_scaling::none) return {};
  json out = json::object();
  // Readers from before "rope_type" look for "type"; both stand for the same.
  const char* kind = rope.scaling == rope_scaling::linear ? "linear" : "llama3";
  out.set("type", kind).set("rope_type", kind).set("factor", rope.factor);
  if (rope.scaling == rope_scaling::llama3)
    out.set("low_freq_factor", rope.low_frequency_factor)
        .set("high_freq_factor", rope.high_frequency_factor)
        .set("original_max_position_embeddings", static_cast<index_t>(rope.original_positions));
  return out;
}

inline void add_quantization(json& out, const quantization_config& q) {
  json inner = json::object();
  inner.set("bnb_4bit_compute_dtype", q.compute_dtype)
      .set("bnb_4bit_quant_storage", q.quant_storage)
      .set("bnb_4bit_quant_type", q.quant_type)
      .set("bnb_4bit_use_double_quant", q.double_quant)
      .set("load_in_4bit", true)
      .set("load_in_8bit", false)
      .set("quant_method", "bitsandbytes");
  out.set("quantization_config", std::move(inner));
}

}  // namespace detail

inline json to_json(const model_config& config) {
  const llama_config& c = config.llama;
  json out = json::object();
  json architectures = json::array();
  architectures.push_back("LlamaForCausalLM");
  if (config.pesc) out.set("adapter_dim", config.pesc->adapter_dim);
  out.set("architectures", std::move(architectures))
      .set("attention_bias", c.attention_bias)
      .set("bos_token_id", c.bos < 0 ? json{} : json{c.bos});
  json eos = json::array();
  for (const std::int32_t id : c.eos) eos.push_back(id);
  out.set("eos_token_id", c.eos.size() == 1 ? json{c.eos[0]} : std::move(eos))
      .set("head_dim", c.head_dim)
      .set("hidden_act", c.activation)
      .set("hidden_size", c.hidden)
      .set("intermediate_size", c.intermediate)
      .set("max_position_embeddings", c.max_positions)
      .set("mlp_bias", c.mlp_bias)
      .set("model_type", "llama");
  if (config.pesc) out.set("moe_dtype", "bfloat16").set("moe_scaling", config.pesc->moe_scaling);
  out.set("num_attention_heads", c.heads);
  if (config.pesc) out.set("num_experts", config.pesc->experts);
  out.set("num_hidden_layers", c.layers).set("num_key_value_heads", c.kv_heads);
  if (config.pesc) out.set("output_router_logits", config.pesc->output_router_logits);
  if (c.rope.pairing == rope_pairing::neighbours) out.set("pesc_rope_pairing", "neighbours");
  if (config.quantization) detail::add_quantization(out, *config.quantization);
  out.set("rms_norm_eps", c.rms_eps)
      .set("rope_scaling", detail::rope_scaling_json(c.rope))
      .set("rope_theta", c.rope.theta)
      .set("tie_word_embeddings", c.tie_embeddings);
  if (config.pesc) out.set("topk", config.pesc->top_k);
  if (!config.dtype.empty()) out.set("torch_dtype", config.dtype);
  return std::move(out.set("vocab_size", c.vocab));
}

}  // namespace pesc
