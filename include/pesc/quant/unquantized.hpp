// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/quant/format.hpp"

namespace pesc {

/// \brief Frozen weights stored as numbers behind the same interface: the exact path.
///
/// \tparam T  `float`, `bf16` or `f16`
template <Scalar T>
struct unquantized {
  static constexpr int bits = 8 * static_cast<int>(sizeof(T));
  static constexpr int block = 1;
  using scales = no_scales;

  static constexpr format_info info() {
    format_info info;
    info.element = std::is_same_v<T, float>  ? element_kind::f32
                   : std::is_same_v<T, bf16> ? element_kind::bf16
                                             : element_kind::f16;
    info.name = std::is_same_v<T, float> ? "float" : std::is_same_v<T, bf16> ? "bf16" : "f16";
    return info;
  }
};

static_assert(QuantFormat<unquantized<float>>);
static_assert(QuantFormat<unquantized<bf16>>);
static_assert(QuantFormat<unquantized<f16>>);

}  // namespace pesc
