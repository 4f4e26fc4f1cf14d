// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pesc/io/json.hpp"
#include "pesc/model/name_pattern.hpp"

// How PEFT describes low-rank updates beside their base model: adapter_config.json, and the names of tensors in
// adapter_model.safetensors.

namespace pesc {

inline constexpr const char* adapter_config_file = "adapter_config.json";
inline constexpr const char* adapter_model_file = "adapter_model.safetensors";

/// \brief Rank and scale of the update of one module.
struct lora_module {
  index_t rank = 8;
  double alpha = 8.0;  ///< its product is scaled by alpha / rank; `use_rslora` of a file is folded in

  [[nodiscard]] double scale() const { return alpha / static_cast<double>(rank); }
  friend bool operator==(const lora_module&, const lora_module&) = default;
};

/// \brief The numbers of a set of low-rank updates, as a model computes with them: one rank, one scale.
struct lora_config {
  index_t rank = 8;    ///< the largest of all modules
  double alpha = 8.0;  ///< updates are scaled by alpha / rank
  double dropout = 0.0;
  std::vector<std::string> target_modules{};  ///< "q_proj", ..., as the file lists them
  std::map<std::string, lora_module, std::less<>>
      modules{};  ///< those that have another rank or scale in their file, by path: "model.layers.0.mlp.up_proj"

  /// \brief Rank and scale of a module as its file has them.
  [[nodiscard]] lora_module of(std::string_view module) const {
    const auto at = modules.find(module);
    return at == modules.end() ? lora_module{rank, alpha} : at->second;
  }
  friend bool operator==(const lora_config&, const lora_config&) = default;
};

/// \brief A number for the modules that a pattern matches.
template <class Number>
struct module_number {
  name_pattern pattern;
  Number value{};
  friend bool operator==(const module_number&, const module_number&) = default;
};

/// \brief What adapter_config.json says.
struct adapter_config {
  index_t rank = 8;
  double alpha = 8.0;
  double dropout = 0.0;
  std::vector<std::string> target_modules{};  ///< empty: a pattern, or all seven projections
  bool rslora = false;                        ///< updates are scaled by alpha over the root of the rank
  std::vector<module_number<index_t>> rank_pattern{};
  std::vector<module_number<double>> alpha_pattern{};
  std::string base_model{};  ///< name or path; may be empty

  /// \brief Rank and scale of a module; of several patterns that match it the first counts.
  [[nodiscard]] lora_module of(std::string_view module) const {
    lora_module out{rank, alpha};
    const auto first_match = [&](const auto& patterns, auto& value) {
      for (const auto& p : patterns)
        if (p.pattern.matches(module)) {
          value = p.value;
          return;
        }
    };
    first_match(rank_pattern, out.rank);
    first_match(alpha_pattern, out.alpha);
    // Rank-stabilised LoRA divides by the root of the rank.
    if (rslora) out.alpha *= std::sqrt(static_cast<double>(out.rank));
    return out;
  }
  friend bool operator==(const adapter_config&, const adapter_config&) = default;
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

inline index_t lora_rank(const json_fields& f, std::string_view key, const json& value) {
  const auto rank = value.to_int();
  if (!rank) f.wrong_type(key, value, "an integer");
  if (*rank < 1 || *rank > 65536)
    raise<format_error>(concat(f.where(key), " is ", *rank, ", expected 1 to 65536"));
  return *rank;
}

inline double lora_alpha(const json_fields& f, std::string_view key, const json& value) {
  const auto alpha = value.to_double();
  if (!alpha) f.wrong_type(key, value, "a number");
  if (!(std::fabs(*alpha) <= 1e30))
    raise<format_error>(concat(f.where(key), " is ", *alpha, ", expected a finite number"));
  return *alpha;
}

/// \brief An object of patterns, in its order.
template <class Number, class Check>
std::vector<module_number<Number>> parse_patterns(const json_fields& f, std::string_view key, Check&& check) {
  std::vector<module_number<Number>> out;
  if (!f.has(key)) return out;
  const json_fields inner = f.get_object(key);
  for (const auto& [pattern, value] : f.find(key)->members())
    out.push_back({name_pattern::parse(pattern, f.where(key)), check(inner, pattern, value)});
  if (out.size() > 65536) raise<format_error>(concat(f.where(key), " holds ", out.size(), " patterns"));
  return out;
}

/// \brief A number without a fraction as an integer, as the code of PEFT writes it.
inline json alpha_json(double alpha) {
  const bool whole = alpha == std::floor(alpha) && std::fabs(alpha) < 1e15;
  return whole ? json{static_cast<index_t>(alpha)} : json{alpha};
}

}  // namespace detail

/// \param file  name for messages
/// \throws format_error, also for variants of LoRA that compute something else
[[nodiscard]] inline adapter_config parse_adapter_config(const json& text, const std::string& file) {
  const json_fields f{text, file};
  if (f.get_string("peft_type") != "LORA")
    detail::raise<format_error>(detail::concat(f.where("peft_type"), " is ",
                                               in_quotes(f.get_string("peft_type")), ", expected \"LORA\""));
  adapter_config out;
  out.rank = detail::lora_rank(f, "r", json{f.get_int("r")});
  out.alpha = detail::lora_alpha(f, "lora_alpha", json{f.get_double("lora_alpha")});
  out.rslora = f.get_bool("use_rslora", false);
  out.dropout = f.get_double("lora_dropout", 0.0);
  if (!(out.dropout >= 0.0 && out.dropout < 1.0))
    detail::raise<format_error>(
        detail::concat(f.where("lora_dropout"), " is ", out.dropout, ", expected 0 to below 1"));
  if (f.get_string("bias", "none") != "none")
    detail::raise<format_error>(
        detail::concat(f.where("bias"), " is ", in_quotes(f.get_string("bias")), ", expected \"none\""));
  for (const char* key : {"fan_in_fan_out", "use_dora", "modules_to_save", "lora_bias", "target_parameters",
                          "layer_replication", "trainable_token_indices", "use_qalora", "use_bdlora",
                          "megatron_config", "arrow_config", "alora_invocation_tokens"})
    detail::expect_off(f, key);
  out.rank_pattern = detail::parse_patterns<index_t>(f, "rank_pattern", detail::lora_rank);
  out.alpha_pattern = detail::parse_patterns<double>(f, "alpha_pattern", detail::lora_alpha);
  out.target_modules = detail::parse_targets(f);
  out.base_model = f.get_string("base_model_name_or_path", "");
  return out;
}

/// \brief adapter_config.json with the keys that PEFT needs; without a list of modules, for all seven projections.
[[nodiscard]] inline json to_json(const adapter_config& config) {
  json targets = json::array();
  if (config.target_modules.empty())
    for (const std::string_view name : detail::lora_modules) targets.push_back(name);
  for (const std::string& name : config.target_modules) targets.push_back(name);
  json alphas = json::object();
  for (const auto& p : config.alpha_pattern) alphas.set(p.pattern.text(), detail::alpha_json(p.value));
  json ranks = json::object();
  for (const auto& p : config.rank_pattern) ranks.set(p.pattern.text(), p.value);
  json out = json::object();
  out.set("alpha_pattern", std::move(alphas))
      .set("base_model_name_or_path", config.base_model.empty() ? json{} : json{config.base_model})
      .set("bias", "none")
      .set("fan_in_fan_out", false)
      .set("inference_mode", true)
      .set("lora_alpha", detail::alpha_json(config.alpha))
      .set("lora_dropout", config.dropout)
      .set("peft_type", "LORA")
      .set("r", config.rank)
      .set("rank_pattern", std::move(ranks))
      .set("target_modules", std::move(targets))
      .set("task_type", "CAUSAL_LM")
      .set("use_rslora", config.rslora);
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

}  // namespace pesc
