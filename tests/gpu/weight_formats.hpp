// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "pesc/quant/fp4.hpp"
#include "pesc/quant/nf4.hpp"
#include "pesc/quant/unquantized.hpp"

namespace support {

/// \brief Storage of every kind: codes, scales and block sizes that take different kernels.
inline std::vector<pesc::format_info> formats() {
  return {pesc::nf4<64>::info(),
          pesc::nf4<64, pesc::double_quant<>>::info(),
          pesc::nf4<32>::info(),
          pesc::nf4<32, pesc::double_quant<>>::info(),
          pesc::nf4<128, pesc::double_quant<>>::info(),
          pesc::nf4<4096>::info(),
          pesc::fp4<64>::info(),
          pesc::fp4<128, pesc::double_quant<>>::info(),
          pesc::unquantized<float>::info(),
          pesc::unquantized<pesc::bf16>::info(),
          pesc::unquantized<pesc::f16>::info()};
}

}  // namespace support
