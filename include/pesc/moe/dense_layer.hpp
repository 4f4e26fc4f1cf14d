// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/moe/plan.hpp"

namespace pesc {

/// \brief The shared path alone: a frozen feed-forward network with optional LoRA and no experts.
///
/// Takes the place of `moe_layer` in a model: the dense model before it is crafted, and the baseline that trains LoRA only.
template <MoeConfig Config, class X>
class dense_layer {
 public:
  using config = Config;
  using backend = X;
  template <class Other>
  using on = dense_layer<Config, Other>;  ///< the same layer on another backend
  using space = typename X::memory_space;
  using activation = float;
  using shared_path = typename Config::shared;
  using trainables = typename shared_path::template parameters<space>;
  using frozen = typename shared_path::template frozen<typename Config::weight, space>;
  static constexpr bool routed = false;

  struct state {
    matrix_view<const float, space> x;
    typename shared_path::template state<space> shared;
  };

  /// \brief A layer over the caller's memory, which must outlive it; `experts` and `rank` of the shape are not used.
  /// \throws shape_error when sizes do not fit together
  dense_layer(const moe_shape& shape, const frozen& weights, const trainables& parameters,
              const moe_options& options = {})
      : shape_{shape}, options_{options}, frozen_{weights}, parameters_{parameters} {
    frozen_.check(shape_);
  }

  [[nodiscard]] const moe_shape& shape() const { return shape_; }
  [[nodiscard]] const moe_options& options() const { return options_; }
  void set_options(const moe_options& options) { options_ = options; }
  [[nodiscard]] const trainables& parameters() const { return parameters_; }
  [[nodiscard]] const frozen& weights() const { return frozen_; }

  [[nodiscard]] state carve_state(workspace<space>& ws, index_t tokens) const {
    return {{}, shared_path::template state<space>::carve(ws, shape_, tokens, options_.recompute_ffn)};
  }

  /// \brief y [tokens, hidden] from x, which must stay unchanged until `backward`.
  void forward(X& ctx, matrix_view<const float, space> x, matrix_view<float, space> y, state& s,
               const moe_run& run, workspace<space>& ws) const {
    s.x = x;
    shared_forward<typename Config::compute>(ctx, shared_path{}, x, frozen_, parameters_, s.shared, shape_,
                                             options_, run, ws);
    if (!ws.counting()) copy(ctx, as_const(s.shared.out), y);
  }

  /// \brief Writes dx, adds to `gradient`.
  void backward(X& ctx, matrix_view<const float, space> dy, matrix_view<float, space> dx,
                const trainables& gradient, state& s, const balance_gradient<space>&, const moe_run& run,
                workspace<space>& ws) const {
    if (!ws.counting()) fill(ctx, dx, 0.0f);
    shared_backward<typename Config::compute>(ctx, shared_path{}, s.x, frozen_, parameters_, s.shared, dy, dx,
                                              gradient, shape_, options_, run, ws);
  }

 private:
  moe_shape shape_;
  moe_options options_;
  frozen frozen_{};
  trainables parameters_{};
};

}  // namespace pesc
