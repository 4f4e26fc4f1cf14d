// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>

#include "pesc/core/error.hpp"
#include "pesc/core/types.hpp"

namespace pesc {

/// \brief How the learning rate goes on after the warm-up.
enum class schedule_kind : std::uint8_t {
  constant,  ///< stays at the base rate
  cosine,    ///< half a cosine wave from the base rate down to `final_fraction` of it
  linear,    ///< a straight line down to `final_fraction` of the base rate
};

/// \brief Learning rate as a function of the step, without state, so that a resumed run needs nothing but the
/// step.
///
/// The factors are those of the schedules in Hugging Face transformers, in the same order of operations: the
/// first step of a warm-up has rate zero, and a cosine followed past `total` rises again.
struct schedule {
  schedule_kind kind = schedule_kind::cosine;
  double base_rate = 1e-3;
  index_t warmup = 0;           ///< steps of linear rise from zero
  index_t total = 1;            ///< steps of the whole run, warm-up included; not used by `constant`
  double final_fraction = 0.0;  ///< share of the base rate that is left at the end, 0 to 1
  double cycles = 0.5;          ///< cosine waves between warm-up and end

  /// \throws shape_error for a rate that is not finite and positive, or counts and fractions outside their
  /// range
  void check() const {
    PESC_EXPECTS(std::isfinite(base_rate) && base_rate > 0, "learning rate is ", base_rate,
                 ", expected above 0");
    PESC_EXPECTS(warmup >= 0, "warm-up is ", warmup, " steps, expected 0 or more");
    PESC_EXPECTS(total >= 1, "schedule is ", total, " steps long, expected 1 or more");
    PESC_EXPECTS(final_fraction >= 0 && final_fraction <= 1, "final learning-rate fraction is ",
                 final_fraction, ", expected 0 to 1");
    PESC_EXPECTS(std::isfinite(cycles) && cycles >= 0, "cosine waves are ", cycles, ", expected 0 or more");
  }

  /// \brief What the base rate is multiplied by in the update of `step`, which counts from 0.
  [[nodiscard]] double factor(index_t step) const {
    if (step < warmup) return static_cast<double>(step) / static_cast<double>(std::max<index_t>(1, warmup));
    if (kind == schedule_kind::constant) return 1.0;
    const double span = static_cast<double>(std::max<index_t>(1, total - warmup));
    double shape = 0.0;
    if (kind == schedule_kind::cosine) {
      constexpr double pi = 3.14159265358979323846;
      const double progress = static_cast<double>(step - warmup) / span;
      shape = 0.5 * (1.0 + std::cos(pi * cycles * 2.0 * progress));
    } else {
      shape = std::max(0.0, static_cast<double>(total - step) / span);
    }
    return std::max(0.0, shape * (1.0 - final_fraction) + final_fraction);
  }

  /// \brief Learning rate of the update of `step`, which counts from 0.
  [[nodiscard]] double operator()(index_t step) const { return base_rate * factor(step); }
};

}  // namespace pesc
