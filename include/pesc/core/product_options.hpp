// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace pesc {

/// \brief How a dense product reads its operands and writes its result.
struct matmul_options {
  float alpha = 1;
  bool transpose_a = false;
  bool transpose_b = false;
  bool accumulate = false;  ///< add to y instead of overwriting it
};

/// \brief How a product with a frozen weight is formed.
struct quantized_options {
  bool transpose = false;   ///< x W instead of x Wᵀ
  bool accumulate = false;  ///< add to y instead of overwriting it
  bool round_bf16 =
      false;  ///< round activations to bfloat16; faster where the processor multiplies that type
};

}  // namespace pesc
