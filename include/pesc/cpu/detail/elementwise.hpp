// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "pesc/cpu/detail/attention_task.hpp"
#include "pesc/cpu/detail/kernels.hpp"
#include "pesc/nn/activation.hpp"
#include "pesc/nn/adamw.hpp"
#include "pesc/nn/attention_types.hpp"

// The kernels that are not products, once for every instruction set, on the registers of its region. Whatever
// the .inl files need is included above: a header first seen inside a region would be compiled for its
// instruction set.

namespace pesc::cpu {
inline namespace PESC_CPU_ABI {
namespace detail {
namespace scalar {
#include "pesc/cpu/detail/elementwise.inl"
}  // namespace scalar
}  // namespace detail
}  // namespace PESC_CPU_ABI
}  // namespace pesc::cpu

#if PESC_HAS_X86_KERNELS

#if !defined(PESC_EMULATE_AVX512)
PESC_TARGET_BEGIN("avx2,fma,f16c")
namespace pesc::cpu {
inline namespace PESC_CPU_ABI {
namespace detail {
namespace avx2 {
#include "pesc/cpu/detail/elementwise.inl"
}  // namespace avx2
}  // namespace detail
}  // namespace PESC_CPU_ABI
}  // namespace pesc::cpu
PESC_TARGET_END
#endif

PESC_TARGET_BEGIN("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")
namespace pesc::cpu {
inline namespace PESC_CPU_ABI {
namespace detail {
namespace avx512 {
#include "pesc/cpu/detail/elementwise.inl"
}  // namespace avx512
}  // namespace detail
}  // namespace PESC_CPU_ABI
}  // namespace pesc::cpu
PESC_TARGET_END

#endif

namespace pesc::cpu {
inline namespace PESC_CPU_ABI {
namespace detail {

template <class Kernels>
struct elementwise_of {
  using type = scalar::elementwise_kernels;
};
#if PESC_HAS_X86_KERNELS
#if !defined(PESC_EMULATE_AVX512)
template <>
struct elementwise_of<avx2::kernels> {
  using type = avx2::elementwise_kernels;
};
#endif
template <>
struct elementwise_of<avx512::kernels> {
  using type = avx512::elementwise_kernels;
};
template <>
struct elementwise_of<avx512_bf16::kernels> {
  using type = avx512::elementwise_kernels;
};
#endif

/// \brief Calls `f(kernels)` with the element-wise kernels of the instruction set of a context.
template <IsaPolicy I, class F>
void with_elementwise(const I& policy, F&& f) {
  with_kernels(policy, [&](auto kernels) { f(typename elementwise_of<decltype(kernels)>::type{}); });
}

}  // namespace detail
}  // namespace PESC_CPU_ABI
}  // namespace pesc::cpu
