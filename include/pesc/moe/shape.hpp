// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/core/random.hpp"
#include "pesc/core/views.hpp"
#include "pesc/moe/routing_types.hpp"

namespace pesc {

/// \brief Run-time sizes of a layer; those that the configuration fixes may stay 0.
struct moe_shape {
  index_t hidden = 0;        ///< width of x and y
  index_t intermediate = 0;  ///< width of the feed-forward network
  index_t experts = 0;
  index_t top_k = 0;      ///< experts per token
  index_t rank = 0;       ///< width of an adapter
  index_t lora_rank = 0;  ///< 0: no LoRA
};

/// \brief Run-time numbers of a layer.
struct moe_options {
  float expert_scale = 1.0f;     ///< factor of an adapter's output, `moe_scaling` of checkpoints
  float adapter_dropout = 0.0f;  ///< probability of zeroing an adapter input, training only
  float lora_alpha = 16.0f;      ///< LoRA updates are scaled by alpha / rank
  float lora_dropout = 0.0f;
  bool recompute_ffn = false;  ///< keep less for backward: compute gate and up again
};

/// \brief What differs from call to call.
struct moe_run {
  bool training = false;    ///< dropout and router noise on
  std::uint64_t seed = 0;   ///< of all random numbers
  std::uint32_t step = 0;   ///< micro-batch counter
  std::uint16_t layer = 0;  ///< index of the layer in its model

  [[nodiscard]] constexpr random_stream stream(random_site site, std::uint8_t part = 0) const {
    return {.seed = seed, .step = step, .layer = layer, .site = site, .part = part};
  }
};

/// \brief The three types that fix how frozen weights are stored, updated and multiplied.
template <class Format, class Lora, class Compute>
struct frozen_storage {
  using format = Format;
  using lora = Lora;
  using compute = Compute;
};

/// \brief What a layer's backward adds to the gradient of its logits; see `balance_gradient_of`.
template <class Space = host_space>
struct balance_gradient {
  vector_view<const float, Space>
      fractions;              ///< [experts], share of choices per expert; empty: no balance loss
  float scale = 0.0f;         ///< coefficient · experts, over `rows`
  float z_scale = 0.0f;       ///< coefficient · 2, over `rows`
  float router_scale = 0.0f;  ///< coefficient of the router's own loss, where it has one
  vector_view<const std::uint8_t, Space> valid{};  ///< [tokens], rows that count; empty: all
  vector_view<const double, Space> rows{};         ///< [1], number of rows counted; empty: 1

  [[nodiscard]] bool active() const { return !fractions.empty() && (scale != 0.0f || z_scale != 0.0f); }
};

}  // namespace pesc
