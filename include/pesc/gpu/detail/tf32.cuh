// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

// Single-precision products on tensor cores. A float is split into two tf32 numbers (11 significant bits
// each), x = high + low up to 2^-22 of its size, and a product into high·high + high·low + low·high.

namespace pesc::gpu::detail {

/// \brief `N` registers of an operand's fragment, split. An infinite number becomes NaN: it has no low part.
template <int N>
struct tf32_fragment {
  std::uint32_t high[N];
  std::uint32_t low[N];

  __device__ void set(int i, float value) {
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(high[i]) : "f"(value));
    // The difference is exact. Cutting it to tf32 costs less than rounding and loses 2^-22 of the value.
    low[i] = __float_as_uint(value - __uint_as_float(high[i])) & 0xFFFFE000u;
  }
};

/// \brief c += a b, [16, 8] times [8, 8].
///
/// With g = lane / 4 and q = lane % 4, the registers of a lane are
/// a: (g, q), (g + 8, q), (g, q + 4), (g + 8, q + 4); b: (q, g), (q + 4, g);
/// c: (g, 2q), (g, 2q + 1), (g + 8, 2q), (g + 8, 2q + 1).
__device__ inline void mma_tf32(float (&c)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

}  // namespace pesc::gpu::detail
