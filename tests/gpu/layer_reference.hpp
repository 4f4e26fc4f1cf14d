// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "pesc/moe/shape.hpp"
#include "pesc/quant/format.hpp"

namespace support {

/// \brief One forward and backward of a layer with random frozen weights.
struct layer_task {
  pesc::moe_shape shape;
  pesc::moe_options options;
  pesc::format_info format;
  pesc::index_t tokens = 1;
  pesc::moe_run run;
  std::uint64_t weight_seed = 7;
  bool balance = false;  ///< with the balance loss (0.01) and the z-loss (0.001)
};

/// \brief What it gives.
struct layer_answer {
  std::vector<float> y, dx;          ///< [tokens, hidden]
  std::vector<float> gradients;      ///< an arena of the trainables' layout
  std::vector<std::int32_t> expert;  ///< [slots]
  double balance = 0;
  double z = 0;
};

/// \brief Start values of the trainable tensors, of the layout of `moe_dynamic`.
[[nodiscard]] std::vector<float> random_trainables(const pesc::moe_shape& shape, std::uint64_t seed);

/// \brief The answer of the double-precision reference, which the CPU's tests hold against central differences. Compiled by
/// the C++ compiler, since it reads weights through the CPU backend.
[[nodiscard]] layer_answer reference_answer(const layer_task& task, const std::vector<float>& trainables,
                                            const std::vector<float>& x, const std::vector<float>& dy);

}  // namespace support
