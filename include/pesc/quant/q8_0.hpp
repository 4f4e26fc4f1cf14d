// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/quant/format.hpp"

namespace pesc {

/// \brief GGUF's Q8_0: blocks of 32 weights of a row, a weight being a signed 8-bit code * scale.
struct q8_0 {
  static constexpr int bits = 8;
  static constexpr int block = 32;
  using scales = plain_scales;

  static constexpr format_info info() {
    format_info info;
    info.element = element_kind::code8;
    info.scales = scales::kind;
    info.block = block;
    info.name = "q8_0";
    return info;
  }
};

static_assert(QuantFormat<q8_0>);

}  // namespace pesc
