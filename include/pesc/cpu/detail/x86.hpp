// SPDX-License-Identifier: Apache-2.0
#pragma once

// The one place where intrinsics come from. A test that runs the 512-bit kernels on an emulation includes its
// replacement before any header of the library and defines PESC_EMULATE_AVX512.
#if !defined(PESC_EMULATE_AVX512)
#if defined(__GNUC__) && !defined(__clang__)
// The header's own "undefined" pass-through operands are reported from inside it once its functions are inlined.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
#endif
