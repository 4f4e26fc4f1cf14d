// SPDX-License-Identifier: Apache-2.0
#pragma once

// The auxiliary losses. Forward passes of all layers add to one set of sums; the loss and the gradient of every layer's
// logits follow from the pooled sums.

#include "pesc/core/buffer.hpp"
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

/// \brief Owns the pooled sums of a model and the fractions that its layers' backward reads.
class balance_pool {
 public:
  balance_pool() = default;
  balance_pool(index_t experts, index_t top_k)
      : experts_{experts}, top_k_{top_k}, sums_(2 * experts + 2), fractions_(experts) {}

  /// \brief Where forward passes add.
  [[nodiscard]] balance_sums<> sums() {
    double* data = sums_.data();
    return {{data, experts_}, {data + experts_, experts_}, {data + 2 * experts_, 2}};
  }

  /// \brief Back to zero, before the first layer of a micro-batch.
  void clear() {
    for (index_t i = 0; i < sums_.size(); ++i) sums_[i] = 0.0;
  }

  /// \brief Choices of each expert so far.
  [[nodiscard]] vector_view<const double> counts() const { return {sums_.data(), experts_}; }

  /// \brief Value of the balance loss, without its coefficient; 0 without rows.
  [[nodiscard]] double balance_loss(const balance_options& options) const {
    const double rows = sums_.size() == 0 ? 0.0 : sums_[2 * experts_];
    if (rows <= 0.0 || options.kind == balance_kind::none) return 0.0;
    if (options.kind == balance_kind::camelidae_constant)
      return static_cast<double>(experts_) / static_cast<double>(top_k_);
    double sum = 0.0;
    for (index_t e = 0; e < experts_; ++e) sum += sums_[e] / rows * (sums_[experts_ + e] / rows);
    return sum * static_cast<double>(experts_) / (options.per_slot ? static_cast<double>(top_k_) : 1.0);
  }

  /// \brief Mean squared log-sum-exp, without its coefficient; 0 without rows.
  [[nodiscard]] double z_loss() const {
    const double rows = sums_.size() == 0 ? 0.0 : sums_[2 * experts_];
    return rows <= 0.0 ? 0.0 : sums_[2 * experts_ + 1] / rows;
  }

  /// \brief What every layer's backward needs, from the sums pooled so far.
  ///
  /// d/d logit of row n: scale p_e (f_e - Σ f p) + z_scale lse p_e; f is treated as constant.
  [[nodiscard]] balance_gradient<> gradient(const balance_options& options,
                                            vector_view<const std::uint8_t> valid = {}) {
    const double rows = sums_.size() == 0 ? 0.0 : sums_[2 * experts_];
    balance_gradient<> out;
    out.valid = valid;
    if (rows <= 0.0) return out;
    for (index_t e = 0; e < experts_; ++e)
      fractions_[e] =
          static_cast<float>(sums_[e] / rows / (options.per_slot ? static_cast<double>(top_k_) : 1.0));
    out.fractions = fractions_.view();
    if (options.kind == balance_kind::switch_hf)
      out.scale =
          static_cast<float>(static_cast<double>(options.coefficient) * static_cast<double>(experts_) / rows);
    out.z_scale = static_cast<float>(2.0 * static_cast<double>(options.z_coefficient) / rows);
    out.router_scale = options.coefficient;
    return out;
  }

 private:
  index_t experts_ = 0;
  index_t top_k_ = 1;
  buffer<double> sums_;
  buffer<float> fractions_;
};

}  // namespace pesc
