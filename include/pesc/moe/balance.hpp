// SPDX-License-Identifier: Apache-2.0
#pragma once

// The auxiliary losses. Forward passes of all layers add to one set of sums; the loss and the gradient of every layer's
// logits follow from the pooled sums.

#include <utility>

#include "pesc/core/mirrored_buffer.hpp"
#include "pesc/moe/route.hpp"

namespace pesc {

/// \brief Which balance loss is added.
enum class balance_kind {
  none,
  switch_hf,  ///< E Σ f_e P_e, f and P pooled over rows and layers (Switch; Mixtral's published code)
  camelidae_constant,  ///< what the published Camelidae code computes: experts / top-k for any routing, zero gradient
};

/// \brief Coefficients of the auxiliary losses.
struct balance_options {
  balance_kind kind = balance_kind::switch_hf;
  float coefficient = 0.01f;
  float z_coefficient = 0.0f;  ///< of the mean squared log-sum-exp of the logits (ST-MoE)
  bool per_slot = false;       ///< count choices over slots instead of rows: balanced value 1 instead of k
};

/// \brief Values of the auxiliary losses without their coefficients, and what they were made of.
struct balance_values {
  double balance = 0.0;  ///< 0 without rows
  double z = 0.0;        ///< mean squared log-sum-exp
  vector_view<const double>
      counts{};  ///< choices of each expert; valid until the pool changes or is read again
};

/// \brief Owns the pooled sums of a model and the fractions that its layers' backward reads, in the backend's memory.
template <class Resource = host_resource>
class balance_pool {
 public:
  using space = typename Resource::memory_space;

  balance_pool() = default;
  balance_pool(index_t experts, index_t top_k)
      : experts_{experts}, top_k_{top_k}, sums_(2 * experts + 2), fractions_(experts) {}

  /// \brief Where forward passes add.
  [[nodiscard]] balance_sums<space> sums() {
    const auto all = sums_.view();
    return {all.part(0, experts_), all.part(experts_, experts_), all.part(2 * experts_, 2)};
  }

  /// \brief Back to zero, before the first layer of a micro-batch.
  template <class X>
  void clear(X& ctx) {
    fill(ctx, sums_.view(), 0.0);
  }

  /// \brief The losses of the sums pooled so far; waits for the backend.
  template <class X>
  [[nodiscard]] balance_values values(X& ctx, const balance_options& options) {
    balance_values out;
    if (sums_.size() == 0) return out;
    const vector_view<const double> pooled = sums_.read(ctx);
    out.counts = pooled.part(0, experts_);
    const double rows = pooled[2 * experts_];
    if (rows <= 0.0) return out;
    out.z = pooled[2 * experts_ + 1] / rows;
    if (options.kind == balance_kind::none) return out;
    if (options.kind == balance_kind::camelidae_constant) {
      out.balance = static_cast<double>(experts_) / static_cast<double>(top_k_);
      return out;
    }
    for (index_t e = 0; e < experts_; ++e) out.balance += pooled[e] / rows * (pooled[experts_ + e] / rows);
    out.balance *= static_cast<double>(experts_) / (options.per_slot ? static_cast<double>(top_k_) : 1.0);
    return out;
  }

  /// \brief What every layer's backward needs, from the sums pooled so far.
  ///
  /// d/d logit of row n: (scale p_e (f_e - Σ f p) + z_scale lse p_e) / rows; f is treated as constant.
  template <class X>
  [[nodiscard]] balance_gradient<space> gradient(X& ctx, const balance_options& options,
                                                 vector_view<const std::uint8_t, space> valid = {}) {
    balance_gradient<space> out;
    out.valid = valid;
    if (sums_.size() == 0) return out;
    const balance_sums<space> pooled = sums();
    balance_fractions(ctx, pooled, options.per_slot ? static_cast<double>(top_k_) : 1.0, fractions_.view());
    out.fractions = fractions_.view();
    out.rows = pooled.totals.part(0, 1);
    if (options.kind == balance_kind::switch_hf)
      out.scale = options.coefficient * static_cast<float>(experts_);
    out.z_scale = 2.0f * options.z_coefficient;
    out.router_scale = options.coefficient;
    return out;
  }

 private:
  index_t experts_ = 0;
  index_t top_k_ = 1;
  mirrored_buffer<double, Resource> sums_;
  buffer<float, Resource> fractions_;
};

}  // namespace pesc
