// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "pesc/io/safetensors_writer.hpp"
#include "pesc/model/checkpoint.hpp"
#include "pesc/model/config.hpp"
#include "pesc/model/peft.hpp"
#include "pesc/model/quantized_tensors.hpp"
#include "pesc/model/tensor_names.hpp"
#include "pesc/model/trainables.hpp"
#include "pesc/model/weights.hpp"
#include "pesc/text/tokenizer_files.hpp"

namespace pesc {

/// \brief Adds the frozen tensors of a model under Hugging Face names: projections in their format, the rest
/// in float.
///
/// The weights must stay where they are until the file is written; packed ones are unpacked one at a time.
/// \param forms  how 4-bit weights were stored when they were loaded
template <QuantFormat Format>
void store_weights(const model_weights<Format>& weights, const stored_forms& forms, safetensors_writer& out) {
  const auto floats = [&](const std::string& name, const buffer<float>& values, std::vector<index_t> shape) {
    out.add(name, std::move(shape),
            std::span<const float>{values.data(), static_cast<std::size_t>(values.size())});
  };
  const llama_shape& s = weights.shape;
  floats("model.embed_tokens.weight", weights.embedding, {s.vocabulary, s.hidden});
  floats("model.norm.weight", weights.final_norm, {s.hidden});
  if (weights.head.size() > 0) floats("lm_head.weight", weights.head, {s.vocabulary, s.hidden});
  for (std::size_t l = 0; l < weights.layers.size(); ++l) {
    const auto& layer = weights.layers[l];
    const std::string prefix = layer_prefix(static_cast<index_t>(l));
    floats(prefix + "input_layernorm.weight", layer.input_norm, {s.hidden});
    floats(prefix + "post_attention_layernorm.weight", layer.post_norm, {s.hidden});
    layer_weights<Format>::for_each_linear(layer, [&](const char* name, const owned_linear<Format>& linear) {
      const std::string weight = prefix + name + ".weight";
      const auto form = forms.find(weight);
      add_weight(out, weight, linear.weight, form != forms.end() ? form->second : stored_form{});
      if (linear.bias.size() > 0) floats(prefix + name + ".bias", linear.bias, {linear.bias.size()});
    });
  }
}

/// \brief What a save needs beyond the tensors of a model.
struct model_description {
  llama_config llama;
  json extra =
      json::object();  ///< what else the program wants to find again, under the key "pesc" of config.json
  std::string tokenizer{};              ///< a file that is copied along; empty: none
  const stored_forms* forms = nullptr;  ///< from the load; null: every 4-bit weight was quantised from float
};

namespace detail {

template <QuantFormat Format>
std::optional<quantization_config> quantization_of(const model_weights<Format>& weights) {
  const format_info& format = weights.format;
  if (format.element != element_kind::code4) return {};
  return quantization_config{format.name, format.scales == scale_kind::double_quant, "float32", "uint8"};
}

inline std::string file_name_of(const std::string& path) { return path.substr(path.rfind('/') + 1); }

/// \brief config.json of a model; the sizes of its sparse part are those of the model itself.
/// \param tokenizer  name of the file to open for it; may be empty
template <class Model>
json config_json(const Model& model, const model_description& about, const std::string& tokenizer) {
  model_config config{about.llama, {}, quantization_of(model.weights()), "float32"};
  const moe_shape& shape = model.ffn_shape();
  if (Model::config_routed())
    config.pesc = pesc_config{shape.experts, shape.top_k, shape.rank,
                              static_cast<double>(model.options().expert_scale), false};
  json out = to_json(config);
  if (const json* found = out.find("quantization_config")) {
    // Readers that quantise on loading must leave these alone: they are stored as numbers.
    json skipped = json::array();
    skipped.push_back("lm_head").push_back("moe_adapter");
    json quantization = *found;
    quantization.set("llm_int8_skip_modules", std::move(skipped));
    out.set("quantization_config", std::move(quantization));
  }
  json own = about.extra.is_object() ? about.extra : json::object();
  if (!tokenizer.empty()) own.set("tokenizer", tokenizer);
  return std::move(out.set("pesc", std::move(own)));
}

}  // namespace detail

/// \brief Adds a whole model to a checkpoint: config.json, model.safetensors (frozen tensors, routers,
/// adapters), the low-rank updates as a PEFT adapter, and its tokenizer file with those that belong to it.
///
/// \throws io_error, format_error
template <class Model>
void add_model(checkpoint_writer& out, const Model& model, const model_description& about) {
  safetensors_writer tensors;
  tensors.set_metadata("format", "pt");
  const stored_forms none;
  store_weights(model.weights(), about.forms != nullptr ? *about.forms : none, tensors);
  store_trainables(model.parameters(), trainable_kind::expert_path, tensors);
  out.add("model.safetensors", tensors);
  const moe_shape& shape = model.ffn_shape();
  if (shape.lora_rank > 0) {
    safetensors_writer updates;
    updates.set_metadata("format", "pt");
    store_trainables(model.parameters(), trainable_kind::low_rank, updates);
    out.add(adapter_model_file, updates);
    out.add(adapter_config_file,
            to_json(adapter_config{shape.lora_rank, static_cast<double>(model.options().lora_alpha),
                                   static_cast<double>(model.options().lora_dropout)}));
  }
  std::vector<tokenizer_file> words;
  if (!about.tokenizer.empty()) words = tokenizer_files(about.tokenizer);
  for (const tokenizer_file& file : words)
    file.source.empty() ? out.add(file.name, file.text) : out.add_copy(file.name, file.source);
  out.add("config.json",
          detail::config_json(model, about, words.empty() ? std::string{} : words.front().name));
}

/// \brief Saves a model alone, without a training state, as the newest state of a folder.
/// \throws io_error, format_error; the folder then holds what it held before
template <class Model>
void save_model(const std::string& folder, const Model& model, const model_description& about,
                const checkpoint_options& options = {}) {
  checkpoint_writer out(folder, options);
  add_model(out, model, about);
  out.commit();
}

}  // namespace pesc
