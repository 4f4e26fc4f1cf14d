// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "pesc/core/views.hpp"

namespace pesc::detail {

/// \brief Counts of tokens that a model has: one for each expert of each layer, none where nothing is routed.
template <class Model>
[[nodiscard]] index_t load_size(const Model& model) {
  return Model::config_routed() ? model.shape().layers * model.ffn_shape().experts : 0;
}

/// \brief Adds the tokens that went to each expert of a layer.
/// \param s      what the layer kept of its forward pass
/// \param valid  [tokens], 0 for rows that do not count; empty: all rows count
/// \param load   [layers, experts], flat
template <class Model, class LayerState>
void count_load([[maybe_unused]] typename Model::X& ctx, [[maybe_unused]] const Model& model,
                [[maybe_unused]] index_t layer, [[maybe_unused]] const LayerState& s,
                [[maybe_unused]] vector_view<const std::uint8_t, typename Model::X::memory_space> valid,
                [[maybe_unused]] vector_view<std::int32_t, typename Model::X::memory_space> load) {
  if constexpr (Model::config_routed()) {
    const index_t experts = model.ffn_shape().experts;
    expert_load(ctx, as_const(s.ffn.routing.token), as_const(s.ffn.routing.expert), valid,
                load.part(layer * experts, experts));
  }
}

}  // namespace pesc::detail
