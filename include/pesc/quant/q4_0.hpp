// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/quant/format.hpp"

namespace pesc {

/// \brief GGUF's Q4_0: blocks of 32 weights of a row, a weight being (code - 8) * scale.
struct q4_0 {
  static constexpr int bits = 4;
  static constexpr int block = 32;
  using scales = plain_scales;

  PESC_HOST_DEVICE static constexpr array<float, 16> levels() {
    return {-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7};
  }
  static constexpr format_info info() { return make_code4_info(levels(), block, scales::kind, "q4_0"); }
};

static_assert(QuantFormat<q4_0>);

}  // namespace pesc
