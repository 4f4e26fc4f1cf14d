// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "pesc/model/load_weights.hpp"
#include "pesc/model/low_rank.hpp"
#include "pesc/model/tensor_set.hpp"
#include "pesc/model/trainables.hpp"
#include "pesc/moe/shape.hpp"

namespace pesc {

/// \brief A model in memory, its files closed: all that a decoder object and a later save need.
template <QuantFormat Format = any_format>
struct loaded_model {
  std::string name;  ///< of the file or folder that was read
  model_config config;
  json extra;                     ///< the key "pesc" of config.json; null when absent
  model_weights<Format> weights;  ///< must not move while a decoder refers to it
  stored_forms forms;             ///< of 4-bit weights, and of tensors that are kept in float, for a save
  tensor_set trainables;          ///< routers, adapters and low-rank updates as they are stored
  std::optional<lora_config> lora;
  std::string tokenizer;  ///< path of a tokenizer file that lies with the model, or empty
  index_t step = 0;       ///< training steps done, by the manifest
  std::vector<std::string> warnings;

  [[nodiscard]] bool sparse() const { return config.pesc.has_value(); }

  /// \brief Sizes of the feed-forward layers; `experts`, `rank` and `top_k` stay 0 for a dense model.
  [[nodiscard]] moe_shape ffn_shape() const {
    moe_shape out{.hidden = config.llama.hidden,
                  .intermediate = config.llama.intermediate,
                  .lora_rank = lora ? lora->rank : 0};
    if (config.pesc) {
      out.experts = config.pesc->experts;
      out.top_k = config.pesc->top_k;
      out.rank = config.pesc->adapter_dim;
    }
    return out;
  }

  /// \brief Scales of adapters and low-rank updates; dropout is off.
  [[nodiscard]] moe_options ffn_options() const {
    moe_options out;
    if (config.pesc) out.expert_scale = static_cast<float>(config.pesc->moe_scaling);
    if (lora) out.lora_alpha = static_cast<float>(lora->alpha);
    return out;
  }
};

/// \brief Reads a model: a llama2.c file, a Hugging Face folder (numbers or 4 bits inside), a Camelidae or
/// Sparsetral folder, a GGUF file, or a checkpoint of this library; with the low-rank updates in its folder or in
/// `source.adapter`, kept apart or merged.
/// \throws io_error, format_error, numeric_error, shape_error
template <QuantFormat Format = any_format>
[[nodiscard]] loaded_model<Format> load_model(const model_source& source,
                                              const weight_options& options = {}) {
  model_files files = model_files::open(source);
  loaded_model<Format> out;
  out.name = files.name();
  out.config = files.config();
  out.extra = files.extra();
  out.tokenizer = files.tokenizer();
  out.warnings = files.warnings();
  out.step = files.manifest() ? files.manifest()->step : 0;
  if (files.lora())
    out.lora =
        read_adapter(files.adapter(), *files.lora(), out.config.llama, out.trainables, files.adapter_order());
  if (source.merge && !out.lora)
    detail::raise<format_error>(out.name + ": there are no low-rank updates to merge");
  if (source.merge) {
    const merged_updates updates{out.trainables, *out.lora};
    out.weights = load_weights<Format>(files, options, out.forms, out.warnings, &updates);
    out.trainables = {};
    out.lora.reset();
  } else {
    out.weights = load_weights<Format>(files, options, out.forms, out.warnings);
  }
  if (out.config.pesc)
    for_each_expert_path(out.config.llama, *out.config.pesc, [&](const std::string& name, index_t, index_t) {
      out.trainables.add(*files.find(detail::stored_name(files, name)), name, files.name());
    });
  return out;
}

/// \brief Fills a decoder's trainable tensors from a loaded model; initialise the decoder first.
/// \param model  a `llama` over `loaded.weights`, its shape made from `loaded.ffn_shape()`
/// \throws format_error when sizes do not fit, or updates that are there find no place
template <class Model, QuantFormat Format>
trainables_filled load_trainables(const Model& model, const loaded_model<Format>& loaded) {
  const trainables_filled out = load_trainables(model.parameters(), loaded.trainables, loaded.name,
                                                loaded.lora ? &*loaded.lora : nullptr);
  const index_t used = out.expert_path + out.low_rank;
  if (used != loaded.trainables.size())
    detail::raise<format_error>(detail::concat(loaded.name, ": the model took ", used, " of ",
                                               loaded.trainables.size(), " trainable tensors of the file (",
                                               out.expert_path, " of routers and adapters, ", out.low_rank,
                                               " of low-rank updates)"));
  return out;
}

}  // namespace pesc
