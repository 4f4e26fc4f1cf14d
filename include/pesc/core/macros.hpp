// SPDX-License-Identifier: Apache-2.0
#pragma once

// Every macro of the library stands here, so that a reader has one place to look.

#if defined(__FAST_MATH__)
#error "pesc: -ffast-math changes quantisation bits and hides NaN; build without it"
#endif

/// \brief Marks a function that CPU and GPU code share.
#if defined(__CUDACC__)
#define PESC_HOST_DEVICE __host__ __device__
#else
#define PESC_HOST_DEVICE
#endif

/// \brief 1 where errors are thrown, 0 where they print their message and abort (-fno-exceptions).
#if defined(__cpp_exceptions)
#define PESC_HAS_EXCEPTIONS 1
#else
#define PESC_HAS_EXCEPTIONS 0
#endif

/// \brief Checks a condition at the edge of the library, always on; a failure raises `shape_error`.
///
/// The further arguments are put together to the message: what was found, what was expected, what to do.
#define PESC_EXPECTS(condition, ...)                                                   \
  do {                                                                                 \
    if (!(condition)) [[unlikely]]                                                     \
      ::pesc::detail::raise<::pesc::shape_error>(::pesc::detail::concat(__VA_ARGS__)); \
  } while (false)

/// \brief Checks an invariant inside the library; active without NDEBUG.
#if defined(NDEBUG)
#define PESC_ASSERT(condition) static_cast<void>(0)
#else
#include <cassert>
#define PESC_ASSERT(condition) assert(condition)
#endif

/// \brief Stands below an operation and names its instance for the default context of the CPU, `cpu::context<>`.
///
/// Nothing by default: each unit compiles what it calls. Where PESC_COMPILED is defined, units only declare these instances,
/// and one unit of the program includes pesc/cpu/instantiate.hpp.
#if defined(PESC_INSTANTIATE)
#define PESC_CPU_INSTANCE(...) template __VA_ARGS__;
#elif defined(PESC_COMPILED)
#define PESC_CPU_INSTANCE(...) extern template __VA_ARGS__;
#else
#define PESC_CPU_INSTANCE(...)
#endif

// Instruction-set regions. Functions between BEGIN and END may use the named instructions whatever flags the
// translation unit is built with; nothing outside may name their vector types. A build that runs the kernels
// on an emulation of the instruction set (tests) defines PESC_EMULATE_AVX512 and gets no region.
#define PESC_DO_PRAGMA(text) _Pragma(#text)
#if defined(PESC_EMULATE_AVX512)
#define PESC_TARGET_BEGIN(features)
#define PESC_TARGET_END
#elif defined(__clang__)
#define PESC_TARGET_BEGIN(features) \
  PESC_DO_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define PESC_TARGET_END _Pragma("clang attribute pop")
#elif defined(__GNUC__)
#define PESC_TARGET_BEGIN(features) _Pragma("GCC push_options") PESC_DO_PRAGMA(GCC target(features))
#define PESC_TARGET_END _Pragma("GCC pop_options")
#endif

/// \brief 1 where the x86 kernels can be compiled (GCC or clang on x86-64); elsewhere only the scalar ones exist.
#if !defined(PESC_HAS_X86_KERNELS)
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define PESC_HAS_X86_KERNELS 1
#else
#define PESC_HAS_X86_KERNELS 0
#endif
#endif

// Translation units built with different flags get different symbols, so that the linker cannot merge bodies
// compiled for different machines (a crash on the older one); passing a context between such units does not link.
#if defined(__AVX512F__)
#define PESC_CPU_ABI abi_avx512
#elif defined(__AVX2__)
#define PESC_CPU_ABI abi_avx2
#else
#define PESC_CPU_ABI abi_base
#endif
