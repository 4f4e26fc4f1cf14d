// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/quant/format.hpp"

namespace pesc {

/// \brief GGUF's Q4_1: blocks of 32 weights of a row, a weight being code * scale + minimum.
struct q4_1 {
  static constexpr int bits = 4;
  static constexpr int block = 32;
  using scales = scales_with_minimum;

  PESC_HOST_DEVICE static constexpr array<float, 16> levels() {
    return {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  }
  static constexpr format_info info() { return make_code4_info(levels(), block, scales::kind, "q4_1"); }
};

static_assert(QuantFormat<q4_1>);

}  // namespace pesc
