// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/moe/config.hpp"

namespace pesc {

/// \brief The trainable tensors of one layer as views; gradients and moments have the same type over other arenas.
template <MoeConfig Config, class Space = host_space>
struct moe_trainables {
  typename Config::router::template parameters<Space> router;
  typename Config::expert::template parameters<Space> experts;
  typename Config::shared::template parameters<Space> shared;

  /// \param shape  completed by `complete<Config>`
  [[nodiscard]] static moe_trainables carve(parameter_arena<Space>& arena, const moe_shape& shape) {
    moe_trainables out;
    out.router = Config::router::template parameters<Space>::carve(arena, shape);
    out.experts = Config::expert::template parameters<Space>::carve(arena, shape);
    out.shared = Config::shared::template parameters<Space>::carve(arena, shape);
    return out;
  }

  /// \brief Floats of an arena for one layer.
  [[nodiscard]] static index_t size(const moe_shape& shape) {
    parameter_arena<Space> counting;
    static_cast<void>(carve(counting, shape));
    return counting.size();
  }

  /// \brief Calls `f(name, batch_view)` for each tensor, in the order of the arena.
  template <class F>
  void for_each(F&& f) const {
    router.for_each(f);
    experts.for_each(f);
    shared.for_each(f);
  }

  /// \brief The starting values of PESC: the layer computes exactly what its frozen network computes.
  void initialize(std::uint64_t seed, std::uint16_t layer = 0) const {
    random_stream stream{.seed = seed, .layer = layer, .site = random_site::initial_weights};
    router.initialize(stream);
    stream.part = 1;
    experts.initialize(stream);
    stream.part = 16;
    shared.initialize(stream);
  }
};

/// \brief The frozen tensors of one layer as views.
template <MoeConfig Config, class Space = host_space>
using moe_frozen = typename Config::shared::template frozen<typename Config::weight, Space>;

}  // namespace pesc
