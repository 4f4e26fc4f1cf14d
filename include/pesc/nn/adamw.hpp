// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "pesc/core/error.hpp"
#include "pesc/core/types.hpp"

namespace pesc {

/// \brief Hyper-parameters of AdamW (Loshchilov, Hutter, 2019).
struct adamw_options {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0.0;
};

/// \brief The numbers of one step, bias corrections included; what an `adamw_step` operation reads.
///
/// g is multiplied by `gradient_scale`; p *= decay; m = beta1 m + rest1 g; v = beta2 v + rest2 g²;
/// p -= step_size m / (sqrt(v) / root_correction + epsilon).
struct adamw_coefficients {
  float beta1 = 0;
  float beta2 = 0;
  float rest1 = 1;  ///< 1 - beta1, rounded once: the difference of floats would lose digits
  float rest2 = 1;  ///< 1 - beta2
  float epsilon = 0;
  float decay = 1;            ///< 1 - rate * weight_decay: decay comes before the update
  float step_size = 0;        ///< rate / (1 - beta1^t)
  float root_correction = 1;  ///< sqrt(1 - beta2^t)
  float gradient_scale = 1;   ///< clipping and accumulation
};

/// \brief Numbers of step `t`, counted from 1.
inline adamw_coefficients adamw_step_coefficients(const adamw_options& options, double rate, index_t t,
                                                  double gradient_scale = 1.0) {
  PESC_EXPECTS(t >= 1, "AdamW steps are counted from 1, found ", t);
  const double steps = static_cast<double>(t);
  return {.beta1 = static_cast<float>(options.beta1),
          .beta2 = static_cast<float>(options.beta2),
          .rest1 = static_cast<float>(1.0 - options.beta1),
          .rest2 = static_cast<float>(1.0 - options.beta2),
          .epsilon = static_cast<float>(options.epsilon),
          .decay = static_cast<float>(1.0 - rate * options.weight_decay),
          .step_size = static_cast<float>(rate / (1.0 - std::pow(options.beta1, steps))),
          .root_correction = static_cast<float>(std::sqrt(1.0 - std::pow(options.beta2, steps))),
          .gradient_scale = static_cast<float>(gradient_scale)};
}

/// \brief Factor that brings a gradient of this norm down to `max_norm`; 1 where it is shorter or `max_norm` is 0.
PESC_HOST_DEVICE inline double clip_factor(double norm, double max_norm) {
  if (max_norm <= 0.0) return 1.0;
  return std::fmin(1.0, max_norm / (norm + 1e-6));
}

}  // namespace pesc
