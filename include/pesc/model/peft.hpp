// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pesc/io/json.hpp"
#include "pesc/io/safetensors.hpp"
#include "pesc/model/tensor_names.hpp"
#include "pesc/model/tensor_set.hpp"

// Low-rank updates beside their base model, as PEFT stores them: adapter_config.json and
// adapter_model.safetensors.

namespace pesc {

inline constexpr const char* adapter_config_file = "adapter_config.json";
inline constexpr const char* adapter_model_file = "adapter_model.safetensors";

/// \brief The numbers of a set of low-rank updates.
struct lora_config {
  index_t rank = 8;
  double alpha = 8.0;  ///< updates are scaled by alpha / rank; `use_rslora` of a file is folded in
  double dropout = 0.0;
  std::vector<std::string> target_modules;  ///< "q_proj", ..., as the file lists them
  friend bool operator==(const lora_config&, const lora_config&) = default;
};

namespace detail {

inline constexpr std::string_view lora_modules[7] = {"q_proj",    "k_proj",  "v_proj",   "o_proj",
                                                     "gate_proj", "up_proj", "down_proj"};
inline constexpr std::string_view peft_prefix = "base_model.model.";

/// \brief Refuses a key that would change what an update computes.
inline void expect_off(const json_fields& f, std::string_view key) {
  const json* value = f.find(key);
  if (value == nullptr || value->to_bool() == false) return;
  if ((value->is_array() && value->items().empty()) || (value->is_object() && value->members().empty()))
    return;
  raise<format_error>(concat(f.where(key), " is set, which is not supported; results would be wrong"));
}

inline std::vector<std::string> parse_targets(const json_fields& f) {
  std::vector<std::string> out;
  const json* targets = f.find("target_modules");
  if (targets == nullptr || targets->is_string()) return out;  // a pattern: the tensors tell
  for (const json& name : f.get_list("target_modules")) {
    const std::string* text = name.if_string();
    if (text == nullptr) f.wrong_type("target_modules", name, "a list of names");
    const std::string_view last = std::string_view{*text}.substr(text->rfind('.') + 1);
    if (std::find(std::begin(lora_modules), std::end(lora_modules), last) == std::end(lora_modules))
      raise<format_error>(concat(f.where("target_modules"), " holds ", in_quotes(*text),
                                 ", expected q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj"));
    out.push_back(*text);
  }
  return out;
}

}  // namespace detail

/// \param file  name for messages
/// \throws format_error, also for variants of LoRA that compute something else
[[nodiscard]] inline lora_config parse_adapter_config(const json& text, const std::string& file) {
  const json_fields f{text, file};
  if (f.get_string("peft_type") != "LORA")
    detail::raise<format_error>(detail::concat(f.where("peft_type"), " is ",
                                               in_quotes(f.get_string("peft_type")), ", expected \"LORA\""));
  lora_config out;
  out.rank = f.get_int("r");
  if (out.rank < 1 || out.rank > 65536)
    detail::raise<format_error>(detail::concat(f.where("r"), " is ", out.rank, ", expected 1 to 65536"));
  out.alpha = f.get_double("lora_alpha");
  if (!(std::fabs(out.alpha) <= 1e30))
    detail::raise<format_error>(
        detail::concat(f.where("lora_alpha"), " is ", out.alpha, ", expected a finite number"));
  // Rank-stabilised LoRA divides by the root of the rank.
  if (f.get_bool("use_rslora", false)) out.alpha *= std::sqrt(static_cast<double>(out.rank));
  out.dropout = f.get_double("lora_dropout", 0.0);
  if (!(out.dropout >= 0.0 && out.dropout < 1.0))
    detail::raise<format_error>(
        detail::concat(f.where("lora_dropout"), " is ", out.dropout, ", expected 0 to below 1"));
  if (f.get_string("bias", "none") != "none")
    detail::raise<format_error>(
        detail::concat(f.where("bias"), " is ", in_quotes(f.get_string("bias")), ", expected \"none\""));
  for (const char* key :
       {"fan_in_fan_out", "use_dora", "modules_to_save", "rank_pattern", "alpha_pattern", "lora_bias",
        "target_parameters", "layer_replication", "trainable_token_indices", "use_qalora", "use_bdlora",
        "megatron_config", "arrow_config", "alora_invocation_tokens"})
    detail::expect_off(f, key);
  out.target_modules = detail::parse_targets(f);
  return out;
}

/// \brief adapter_config.json with the keys that PEFT needs, for updates of all seven projections.
[[nodiscard]] inline json to_json(const lora_config& config) {
  json targets = json::array();
  if (config.target_modules.empty())
    for (const std::string_view name : detail::lora_modules) targets.push_back(name);
  for (const std::string& name : config.target_modules) targets.push_back(name);
  const bool whole = config.alpha == std::floor(config.alpha) && std::fabs(config.alpha) < 1e15;
  json out = json::object();
  out.set("base_model_name_or_path", json{})
      .set("bias", "none")
      .set("fan_in_fan_out", false)
      .set("inference_mode", true)
      .set("lora_alpha", whole ? json{static_cast<index_t>(config.alpha)} : json{config.alpha})
      .set("lora_dropout", config.dropout)
      .set("peft_type", "LORA")
      .set("r", config.rank)
      .set("target_modules", std::move(targets))
      .set("task_type", "CAUSAL_LM")
      .set("use_rslora", false);
  return out;
}

/// \brief Name of a low-rank tensor in a PEFT file.
[[nodiscard]] inline std::string peft_name(const std::string& name) {
  return std::string{detail::peft_prefix} + name;
}

/// \brief The name without what PEFT puts in front and, in training checkpoints, the name of the adapter.
[[nodiscard]] inline std::string name_without_peft(std::string name) {
  while (name.starts_with(detail::peft_prefix)) name.erase(0, detail::peft_prefix.size());
  for (const char* part : {".lora_A.default.", ".lora_B.default."})
    if (const std::size_t at = name.find(part); at != name.npos) name.erase(at + 7, 8);
  return name;
}

namespace detail {

/// \brief Rows and columns of the projection that a low-rank tensor updates; 0 when the model has none of
/// that name.
inline std::pair<index_t, index_t> projection_size(const llama_config& c, std::string_view name) {
  constexpr std::string_view start = "model.layers.";
  if (!name.starts_with(start)) return {0, 0};
  name.remove_prefix(start.size());
  index_t layer = -1;
  const auto [end, code] = std::from_chars(name.data(), name.data() + name.size(), layer);
  if (code != std::errc{} || layer < 0 || layer >= c.layers) return {0, 0};
  name.remove_prefix(static_cast<std::size_t>(end - name.data()));
  const index_t query = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim;
  struct row {
    std::string_view path;
    index_t out, in;
  };
  const row all[] = {{".self_attn.q_proj", query, c.hidden},       {".self_attn.k_proj", kv, c.hidden},
                     {".self_attn.v_proj", kv, c.hidden},          {".self_attn.o_proj", c.hidden, query},
                     {".mlp.gate_proj", c.intermediate, c.hidden}, {".mlp.up_proj", c.intermediate, c.hidden},
                     {".mlp.down_proj", c.hidden, c.intermediate}};
  for (const row& r : all)
    if (name == r.path) return {r.out, r.in};
  return {0, 0};
}

}  // namespace detail

/// \brief Takes the low-rank pairs of an open PEFT file into `out`, under names without its prefix.
/// \throws format_error for modules that the model lacks, half pairs and sizes that do not fit
inline void read_adapter(const safetensors_file& file, const lora_config& lora, const llama_config& config,
                         tensor_set& out) {
  std::set<std::string> modules, matched, halves;
  std::string unknown;
  for (const tensor_info& tensor : file.tensors()) {
    const std::string name = name_without_peft(tensor.name);
    const std::size_t at = std::max(name.rfind(".lora_A.weight") + 1, name.rfind(".lora_B.weight") + 1);
    const bool is_a = at > 0 && name[at + 5] == 'A';
    const std::string module = at > 0 ? name.substr(0, at - 1) : name;
    modules.insert(module);
    const auto [rows, cols] =
        at > 0 ? detail::projection_size(config, module) : std::pair<index_t, index_t>{0, 0};
    if (rows == 0) {
      if (unknown.empty()) unknown = tensor.name;
      continue;
    }
    matched.insert(module);
    if (!halves.insert(module).second) halves.erase(module);
    const std::vector<index_t> wanted = is_a ? std::vector{lora.rank, cols} : std::vector{rows, lora.rank};
    if (tensor.shape != wanted)
      detail::raise<format_error>(detail::concat(file.name(), ": tensor ", in_quotes(tensor.name), " is ",
                                                 shape_text(tensor.shape), ", expected ", shape_text(wanted),
                                                 " for r = ", lora.rank));
    out.add(tensor, name, file.name());
  }
  if (!unknown.empty() || modules.empty())
    detail::raise<format_error>(detail::concat(file.name(), ": adapter matched ", matched.size(), " of ",
                                               modules.size(), " modules", unknown.empty() ? "" : ", not ",
                                               unknown.empty() ? std::string{} : in_quotes(unknown)));
  if (!halves.empty())
    detail::raise<format_error>(detail::concat(file.name(), ": module ", in_quotes(*halves.begin()),
                                               " has only one of lora_A and lora_B"));
}

}  // namespace pesc
