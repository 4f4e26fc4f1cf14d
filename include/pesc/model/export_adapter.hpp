// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "pesc/io/safetensors_writer.hpp"
#include "pesc/model/export_weights.hpp"
#include "pesc/model/peft.hpp"

namespace pesc {
namespace detail {

/// \brief Calls `f(layer, path of the module in its layer)` for every projection.
template <class F>
void for_each_projection(const llama_config& c, F&& f) {
  for (index_t l = 0; l < c.layers; ++l)
    for (const char* name : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
                             "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"})
      f(l, std::string{name});
}

/// \brief The modules that have updates: by the name of a projection where all layers have one, else by their paths.
inline std::vector<std::string> updated_modules(const loaded_model<>& model) {
  const llama_config& c = model.config.llama;
  std::map<std::string, index_t> layers;
  const auto has = [&](index_t l, const std::string& name) {
    return has_update(model.trainables, layer_prefix(l) + name);
  };
  for_each_projection(c, [&](index_t l, const std::string& name) { layers[name] += has(l, name) ? 1 : 0; });
  std::vector<std::string> out;
  for_each_projection(c, [&](index_t l, const std::string& name) {
    if (layers[name] == c.layers) {
      if (l == 0) out.push_back(name.substr(name.find('.') + 1));
    } else if (has(l, name)) {
      out.push_back(layer_prefix(l) + name);
    }
  });
  return out;
}

}  // namespace detail

/// \brief What PEFT needs to know of a model's low-rank updates.
/// \param base  name or path of the model that they update; may be empty
[[nodiscard]] inline adapter_config adapter_config_of(const loaded_model<>& model, const std::string& base) {
  const lora_config& lora = *model.lora;
  adapter_config out{lora.rank, lora.alpha, lora.dropout, detail::updated_modules(model)};
  out.base_model = base;
  for (const auto& [module, about] : lora.modules) {
    const auto pattern = name_pattern::parse(module, model.name);
    if (about.rank != lora.rank) out.rank_pattern.push_back({pattern, about.rank});
    if (about.alpha != lora.alpha) out.alpha_pattern.push_back({pattern, about.alpha});
  }
  return out;
}

/// \brief Adds a model's low-rank updates under PEFT's names, as they are stored or in another type, rows of queries and
/// keys in the order of Hugging Face files.
/// \param model  must stay until the file is written
inline void add_updates(safetensors_writer& out, const loaded_model<>& model,
                        std::optional<element_type> dtype = {}) {
  const llama_config& c = model.config.llama;
  const row_order order(c.head_dim, c.rope.pairing, rope_pairing::halves);
  const auto add = [&](const std::string& name) {
    const tensor_info& tensor = *model.trainables.find(name);
    const element_type type = dtype.value_or(detail::written_type(tensor.dtype));
    out.add(peft_name(name), type, tensor.shape,
            [&tensor, &model, order, type, turn = has_head_rows(name)](byte_sink sink) {
              const std::vector<float> values = to_floats(tensor, model.name);
              const auto cols = static_cast<std::size_t>(tensor.shape[1]);
              for (index_t r = 0; r < tensor.shape[0]; ++r)
                detail::send_numbers(
                    sink, {values.data() + static_cast<std::size_t>(turn ? order.source(r) : r) * cols, cols},
                    type);
            });
  };
  detail::for_each_projection(c, [&](index_t l, const std::string& name) {
    const std::string module = layer_prefix(l) + name;
    if (!has_update(model.trainables, module)) return;
    add(module + ".lora_A.weight");
    add(module + ".lora_B.weight");
  });
}

}  // namespace pesc
