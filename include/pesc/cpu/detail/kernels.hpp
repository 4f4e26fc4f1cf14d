// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <type_traits>

#include "pesc/core/macros.hpp"
#include "pesc/cpu/detail/scalar.hpp"
#include "pesc/cpu/isa.hpp"
#if PESC_HAS_X86_KERNELS
#include "pesc/cpu/detail/avx2.hpp"
#include "pesc/cpu/detail/avx512.hpp"
#include "pesc/cpu/detail/avx512_bf16.hpp"
#endif

namespace pesc::cpu {
inline namespace PESC_CPU_ABI {
namespace detail {

/// \brief Calls `f(kernels)` with the kernels of one instruction set, whose type holds static functions.
///
/// Instruction sets without kernels on this platform count as scalar. Only the chosen set is instantiated.
template <isa Level, class F>
void with_fixed_kernels(F&& f) {
#if PESC_HAS_X86_KERNELS
  if constexpr (Level == isa::avx512_bf16) {
    f(avx512_bf16::kernels{});
    return;
  } else if constexpr (Level == isa::avx512) {
    f(avx512::kernels{});
    return;
  }
#if !defined(PESC_EMULATE_AVX512)
  else if constexpr (Level == isa::avx2) {
    f(avx2::kernels{});
    return;
  }
#endif
  else
#endif
    f(scalar::kernels{});
}

template <class>
inline constexpr bool is_fixed_isa = false;
template <isa Level>
inline constexpr bool is_fixed_isa<fixed_isa<Level>> = true;

/// \brief Calls `f` with the kernels of the instruction set of a context: one switch per operation, none when
/// fixed.
template <IsaPolicy I, class F>
void with_kernels(const I& policy, F&& f) {
  if constexpr (is_fixed_isa<I>) {
    with_fixed_kernels<I::value()>(f);
  } else {
    switch (policy.value()) {
      case isa::avx512_bf16:
        with_fixed_kernels<isa::avx512_bf16>(f);
        break;
      case isa::avx512:
        with_fixed_kernels<isa::avx512>(f);
        break;
      case isa::avx2:
        with_fixed_kernels<isa::avx2>(f);
        break;
      default:
        with_fixed_kernels<isa::scalar>(f);
        break;
    }
  }
}

}  // namespace detail
}  // namespace PESC_CPU_ABI
}  // namespace pesc::cpu
