// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/cpu/detail/avx512.hpp"

namespace pesc::cpu {
inline namespace PESC_CPU_ABI {
namespace detail {
namespace avx512_bf16 {

struct kernels : avx512::kernels {
  static constexpr isa level = isa::avx512_bf16;
};

}  // namespace avx512_bf16
}  // namespace detail
}  // namespace PESC_CPU_ABI
}  // namespace pesc::cpu
