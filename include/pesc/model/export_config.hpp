// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <utility>

#include "pesc/model/config.hpp"
#include "pesc/model/export_options.hpp"

namespace pesc {
namespace detail {

/// \brief The stretch of rotary positions for readers of `rope_parameters`.
inline json rope_parameters_json(const rope_options& rope) {
  json out = json::object();
  out.set("rope_theta", rope.theta);
  if (rope.scaling == rope_scaling::none) return std::move(out.set("rope_type", "default"));
  const json scaling = rope_scaling_json(rope);
  for (const auto& [key, value] : scaling.members())
    if (key != "type") out.set(key, value);
  return out;
}

/// \brief `rope_scaling` for readers from before `rope_parameters`; the oldest want two keys where two suffice.
inline json old_rope_scaling_json(const rope_options& rope) {
  if (rope.scaling != rope_scaling::linear) return rope_scaling_json(rope);
  json out = json::object();
  return std::move(out.set("type", "linear").set("factor", rope.factor));
}

inline void turn_to_sparsetral(json& out) {
  json architectures = json::array();
  architectures.push_back("MistralForCausalLM");
  out.set("architectures", std::move(architectures))
      .set("model_type", "sparsetral")
      .set("sliding_window", json{});
}

}  // namespace detail

/// \brief config.json of a model in a format of other programs; `peft` has none.
/// \param dtype  of the numbers: "bfloat16"
/// \param quantization  of the projections, for `hf_4bit`
[[nodiscard]] inline json export_config(const model_config& model, export_target target,
                                        const std::string& dtype,
                                        const std::optional<quantization_config>& quantization = {}) {
  model_config written{model.llama, model.pesc, quantization, dtype};
  // Other programs know one order of rows.
  written.llama.rope.pairing = rope_pairing::halves;
  json out = to_json(written);
  out.set("rope_scaling", detail::old_rope_scaling_json(model.llama.rope));
  if (target == export_target::hf || target == export_target::hf_4bit)
    out.set("rope_parameters", detail::rope_parameters_json(model.llama.rope));
  if (target == export_target::sparsetral) detail::turn_to_sparsetral(out);
  if (quantization) {
    json skipped = json::array();
    skipped.push_back("lm_head");
    json inner = *out.find("quantization_config");
    out.set("quantization_config", std::move(inner.set("llm_int8_skip_modules", std::move(skipped))));
  }
  return out;
}

}  // namespace pesc
