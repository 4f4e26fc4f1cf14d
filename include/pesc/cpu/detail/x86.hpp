// SPDX-License-Identifier: Apache-2.0
#pragma once

// The one place where intrinsics come from. A test that runs the 512-bit kernels on an emulation includes its
// replacement before any header of the library and defines PESC_EMULATE_AVX512.
#if !defined(PESC_EMULATE_AVX512)
#include <immintrin.h>
#endif
