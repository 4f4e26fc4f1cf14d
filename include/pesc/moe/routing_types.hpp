// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/core/types.hpp"
#include "pesc/core/views.hpp"

namespace pesc {

/// \brief Whether the softmax runs over the kept logits or over all of them.
enum class gate_order { softmax_after_top_k, softmax_before_top_k };

/// \brief How gates follow from logits: Camelidae and Mixtral, OLMoE, Qwen and Switch are members of one family.
struct gate_options {
  gate_order order = gate_order::softmax_after_top_k;
  bool renormalize = true;  ///< softmax before top-k only: divide the kept probabilities by their sum
};

/// \brief The largest k that the fixed arrays of the routing kernels allow.
inline constexpr int max_top_k = 16;

/// \brief When the load estimate of noisy top-k takes an expert as currently chosen.
enum class load_indicator {
  noisy_logit,  ///< its noisy logit is above the (k+1)-th largest: Shazeer et al. (2017)
  llama_moe,  ///< its noise term alone is above the (k+1)-th largest noisy logit, as LLaMA-MoE's code compares
};

/// \brief What the load estimate reads: how noisy logits were made, [tokens, experts] each, and how they chose.
template <class Space = host_space>
struct noisy_load_inputs {
  matrix_view<const float, Space> clean;
  matrix_view<const float, Space> raw;
  matrix_view<const float, Space> noise;
  matrix_view<const float, Space> noisy;
  int k = 1;  ///< below the number of experts, and below max_top_k
  float epsilon = 1e-2f;
  load_indicator indicator = load_indicator::noisy_logit;
  vector_view<const std::uint8_t, Space>
      valid{};  ///< [tokens], 0 for rows that do not count; empty: all rows count
};

/// \brief Assignments of tokens to experts and their order both ways.
///
/// A *slot* is one assignment of a token to an expert. An expert index of `experts` marks a dropped slot: it belongs to
/// no group. Grouped rows are the kept slots ordered by expert, within an expert by slot.
template <class Space = host_space>
struct slot_groups {
  index_t experts = 0;
  index_t tokens = 0;
  vector_view<std::int32_t, Space> expert_offsets;  ///< [experts + 1], first grouped row of each expert
  vector_view<std::int32_t, Space> slots;           ///< [slots], slot of each grouped row
  vector_view<std::int32_t, Space> slot_of;         ///< [slots], grouped row of each slot, -1 where dropped
  vector_view<std::int32_t, Space> token_of;        ///< [slots], token of each grouped row
  vector_view<std::int32_t, Space>
      token_offsets;                             ///< [tokens + 1], first entry of each token in `token_slots`
  vector_view<std::int32_t, Space> token_slots;  ///< [slots], slots ordered by token, within a token by slot
};

/// \brief Sums over rows that the balance and z losses need, pooled over all layers of a model.
template <class Space = host_space>
struct balance_sums {
  vector_view<double, Space> counts;         ///< [experts], choices of each expert
  vector_view<double, Space> probabilities;  ///< [experts], softmax over all experts, summed over rows
  vector_view<double, Space> totals;         ///< [2]: rows counted, and their squared log-sum-exp
};

}  // namespace pesc
