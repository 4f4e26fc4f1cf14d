// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "pesc/quant/nf4.hpp"
#include "pesc/quant/quantized_matrix.hpp"

namespace bench {

using pesc::index_t;
using weight_format = pesc::nf4<64, pesc::double_quant<>>;

/// \brief A weight of random codes and scales: any byte is valid, and quantising would take longer than what is measured.
inline pesc::quantized_matrix<weight_format, pesc::row_blocks> random_weight(index_t rows, index_t cols,
                                                                             std::uint32_t seed = 1) {
  pesc::quantized_matrix<weight_format, pesc::row_blocks> out(weight_format::info(), rows, cols);
  std::uint32_t state = seed;
  const auto fill = [&](pesc::vector_view<std::uint8_t> bytes) {
    for (std::uint8_t& byte : bytes) {
      state = state * 1664525u + 1013904223u;
      byte = static_cast<std::uint8_t>(state >> 24);
    }
  };
  fill(out.codes());
  fill(out.scale_codes());
  for (float& scale : out.nested_absmax()) scale = 0.01f;
  std::copy(pesc::dynamic_map().begin(), pesc::dynamic_map().end(), out.map().begin());
  out.offset() = 0.02f;
  return out;
}

}  // namespace bench
