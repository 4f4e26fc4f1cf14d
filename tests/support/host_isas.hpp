// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "pesc/cpu/isa.hpp"

namespace support {

/// \brief The instruction sets of this machine, ascending.
inline std::vector<pesc::cpu::isa> host_isas() {
  using pesc::cpu::isa;
  std::vector<isa> levels;
  for (const isa level : {isa::scalar, isa::avx2, isa::avx512, isa::avx512_bf16})
    if (level <= pesc::cpu::detect_isa()) levels.push_back(level);
  return levels;
}

}  // namespace support
