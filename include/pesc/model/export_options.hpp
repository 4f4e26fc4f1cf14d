// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "pesc/model/load_model.hpp"

namespace pesc {

/// \brief Formats of other programs that a model can be written in.
enum class export_target {
  hf,         ///< config.json and numbers in safetensors, as transformers has them; updates merged
  hf_4bit,    ///< the same with projections in the 4-bit form of bitsandbytes
  peft,       ///< the low-rank updates alone
  camelidae,  ///< numbers, routers and adapters under the names of the Camelidae models
  sparsetral  ///< the same under those of the Sparsetral models
};

/// \brief "hf-4bit"
[[nodiscard]] constexpr const char* name_of(export_target target) {
  switch (target) {
    case export_target::hf:
      return "hf";
    case export_target::hf_4bit:
      return "hf-4bit";
    case export_target::peft:
      return "peft";
    case export_target::camelidae:
      return "camelidae";
    default:
      return "sparsetral";
  }
}

/// \brief The target of that name, or nothing.
[[nodiscard]] constexpr std::optional<export_target> export_target_named(std::string_view name) {
  for (const export_target target : {export_target::hf, export_target::hf_4bit, export_target::peft,
                                     export_target::camelidae, export_target::sparsetral})
    if (name == name_of(target)) return target;
  return {};
}

/// \brief How a model is written for other programs.
struct export_options {
  export_target target = export_target::hf;
  /// \brief F32, BF16 or F16 for all numbers; nothing: as they were stored, decoded 4-bit weights in the type that they
  /// had before, and blocks of GGUF files as F32, which holds their values exactly.
  std::optional<element_type> dtype{};
  index_t max_shard_bytes = 5'000'000'000;
  /// \brief For `hf_4bit`: quantise kept 4-bit weights again where an update is merged into them, or where their rows
  /// need another order and share scales.
  bool requantize = false;
};

namespace detail {

/// \brief Refuses for a format whose published code fixes what the configuration varies.
inline void refuse_for_published_code(const std::string& where, const llama_config& c, bool linear_scaling) {
  if (c.attention_bias || c.mlp_bias) raise<format_error>(where + " has projections without bias only");
  if (c.heads * c.head_dim != c.hidden)
    raise<format_error>(
        concat(where, " has heads of hidden_size / num_attention_heads only, not of ", c.head_dim));
  if (c.rope.scaling == rope_scaling::llama3 || (c.rope.scaling == rope_scaling::linear && !linear_scaling))
    raise<format_error>(where + " has no rotary positions that are stretched as in this model");
}

}  // namespace detail

/// \brief Refuses a target that cannot hold the model.
/// \throws format_error
template <QuantFormat Format>
void check_target(const loaded_model<Format>& model, export_target target) {
  const std::string where = detail::concat(model.name, ": the format ", name_of(target));
  const llama_config& c = model.config.llama;
  switch (target) {
    case export_target::hf:
    case export_target::hf_4bit:
      if (model.sparse())
        detail::raise<format_error>(where + " holds no experts; use camelidae or sparsetral");
      return;
    case export_target::peft:
      if (!model.lora)
        detail::raise<format_error>(where + " holds low-rank updates, and this model has none; use hf");
      return;
    case export_target::camelidae:
    case export_target::sparsetral:
      if (!model.sparse())
        detail::raise<format_error>(where + " holds a mixture of experts, and this model is dense; use hf");
      detail::refuse_for_published_code(where, c, target == export_target::camelidae);
      return;
  }
}

}  // namespace pesc
