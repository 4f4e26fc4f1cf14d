// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/core/random.hpp"
#include "pesc/nn/adamw.hpp"

namespace pesc::gpu {

/// \brief What changes from one training step to the next. In device memory, one copy per step updates all of it.
///
/// Operations of a context that reads step values take these fields in place of their arguments, so that a captured graph
/// can be replayed for other steps.
struct step_values {
  std::uint64_t seed = 0;      ///< of every random stream
  std::uint32_t step = 0;      ///< micro-batch counter of every random stream
  float loss_scale = 1.0f;     ///< of `cross_entropy`: 1 / target tokens
  adamw_coefficients adamw{};  ///< learning rate and bias corrections included
};

namespace detail {

/// \brief The stream as its argument says, or with seed and step of the step values where there are any.
__device__ inline random_stream current(random_stream s, const step_values* values) {
  if (values != nullptr) {
    s.seed = values->seed;
    s.step = values->step;
  }
  return s;
}

}  // namespace detail
}  // namespace pesc::gpu
