// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>

#include "pesc/core/error.hpp"
#include "pesc/core/macros.hpp"

namespace pesc::cpu {
inline namespace PESC_CPU_ABI {

/// \brief Instruction sets that kernels exist for, in ascending order; a processor with one has all before it.
enum class isa { scalar, avx2, avx512, avx512_bf16 };

/// \brief Name of an instruction set, as programs print and read it.
constexpr const char* name_of(isa level) {
  switch (level) {
    case isa::avx2:
      return "avx2";
    case isa::avx512:
      return "avx512";
    case isa::avx512_bf16:
      return "avx512_bf16";
    default:
      return "scalar";
  }
}

/// \brief The best instruction set of this processor.
inline isa detect_isa() {
#if defined(PESC_EMULATE_AVX512)
  return isa::avx512_bf16;
#elif PESC_HAS_X86_KERNELS
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return isa::scalar;
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (!avx512 || !__builtin_cpu_supports("avx512vbmi")) return isa::avx2;
  return __builtin_cpu_supports("avx512bf16") ? isa::avx512_bf16 : isa::avx512;
#else
  return isa::scalar;
#endif
}

/// \brief Chooses the instruction set when the context is made.
struct runtime_isa {
  isa level = detect_isa();

  constexpr isa value() const { return level; }
};

/// \brief Fixes the instruction set at compile time: no switch, and no code of the others.
template <isa Level>
struct fixed_isa {
  static constexpr isa value() { return Level; }
};

/// \brief How a context knows its instruction set.
template <class T>
concept IsaPolicy = requires(const T& policy) {
  { policy.value() } -> std::same_as<isa>;
};

static_assert(IsaPolicy<runtime_isa>);
static_assert(IsaPolicy<fixed_isa<isa::avx2>>);

}  // namespace PESC_CPU_ABI
}  // namespace pesc::cpu
