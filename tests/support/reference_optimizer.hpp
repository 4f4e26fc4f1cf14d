// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <numbers>

#include "support/reference_matrix.hpp"

namespace reference {

struct adamw_options {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0;
};

struct adamw_state {
  matrix m;
  matrix v;
  index_t step = 0;
};

/// \brief One step of AdamW; the decay multiplies the parameter before the update.
inline void adamw_step(matrix& parameter, const matrix& gradient, adamw_state& state, double rate,
                       const adamw_options& options) {
  if (state.m.empty()) state.m = state.v = matrix(parameter.rows, parameter.cols);
  ++state.step;
  const double t = static_cast<double>(state.step);
  const double correction1 = 1 - std::pow(options.beta1, t);
  const double correction2 = 1 - std::pow(options.beta2, t);
  for (index_t i = 0; i < parameter.count(); ++i) {
    parameter[i] *= 1 - rate * options.weight_decay;
    state.m[i] = options.beta1 * state.m[i] + (1 - options.beta1) * gradient[i];
    state.v[i] = options.beta2 * state.v[i] + (1 - options.beta2) * gradient[i] * gradient[i];
    parameter[i] -=
        rate * (state.m[i] / correction1) / (std::sqrt(state.v[i] / correction2) + options.epsilon);
  }
}

/// \brief Euclidean norm of all gradients together.
inline double global_norm(const list<matrix>& gradients) {
  double squares = 0;
  for (const matrix& g : gradients)
    for (const double value : g.values) squares += value * value;
  return std::sqrt(squares);
}

/// \brief Shortens the gradients to `max_norm` when they are longer; returns the norm before.
inline double clip_by_global_norm(list<matrix>& gradients, double max_norm) {
  const double norm = global_norm(gradients);
  const double factor = max_norm / (norm + 1e-6);
  if (factor < 1)
    for (matrix& g : gradients) g = scaled(g, factor);
  return norm;
}

/// \brief Factor of the learning rate at `step` (from 0) while it rises; 1 afterwards.
inline double warmup_factor(index_t step, index_t warmup) {
  return step < warmup ? static_cast<double>(step) / static_cast<double>(warmup) : 1;
}

/// \brief Share of the steps after the warm-up that lie behind; above 1 past the end.
inline double decay_progress(index_t step, index_t warmup, index_t total) {
  return static_cast<double>(step - warmup) / static_cast<double>(std::max<index_t>(1, total - warmup));
}

inline double constant_schedule(index_t step, index_t warmup) { return warmup_factor(step, warmup); }

/// \brief Falls in a straight line from 1 to `lowest` at `total`, and stays there.
inline double linear_schedule(index_t step, index_t warmup, index_t total, double lowest = 0) {
  if (step < warmup) return warmup_factor(step, warmup);
  return 1 - (1 - lowest) * std::min(1.0, decay_progress(step, warmup, total));
}

/// \brief Falls along half a cosine from 1 to `lowest` at `total`; past it the cosine rises again.
inline double cosine_schedule(index_t step, index_t warmup, index_t total, double lowest = 0) {
  if (step < warmup) return warmup_factor(step, warmup);
  const double fall = 0.5 * (1 + std::cos(std::numbers::pi * decay_progress(step, warmup, total)));
  return lowest + (1 - lowest) * fall;
}

}  // namespace reference
