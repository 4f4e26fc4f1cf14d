// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

// Instructions of tensor cores and of shared memory, by 32-bit shared addresses.

namespace pesc::gpu::detail {

/// \brief Number of the warp in its block, in a way that tells the compiler that the lanes agree.
__device__ inline std::uint32_t warp_of_block() { return __shfl_sync(0xFFFFFFFFu, threadIdx.x / 32, 0); }

/// \brief Keeps a value in its register: without this the compiler may compute it again at every use.
__device__ inline void keep(std::uint32_t& value) { asm volatile("" : "+r"(value)); }

/// \brief c += a b, [16, 16] times [16, 8] in bfloat16 with sums in float.
///
/// With g = lane / 4 and t = lane % 4, registers hold a = (g, 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8)
/// and the column after each; b = (2t, g), (2t + 8, g) and the row after each; c = (g, 2t), (g, 2t + 1), (g +
/// 8, 2t), (g + 8, 2t + 1).
__device__ inline void mma_bf16(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// \brief Two floats rounded to bfloat16, `low` in the lower half.
__device__ inline std::uint32_t bf16_pair(float low, float high) {
  std::uint32_t pair = 0;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

/// \brief Two floats rounded to half precision, `low` in the lower half.
__device__ inline std::uint32_t f16_pair(float low, float high) {
  std::uint32_t pair = 0;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

__device__ inline std::uint32_t shared_address(const void* data) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(data));
}

// Volatile, so that they stay between the barriers they are written between.

__device__ inline std::uint32_t load_shared(std::uint32_t address) {
  std::uint32_t v = 0;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(v) : "r"(address));
  return v;
}

__device__ inline float2 load_shared_float2(std::uint32_t address) {
  float2 v;
  asm volatile("ld.shared.v2.f32 {%0,%1}, [%2];" : "=f"(v.x), "=f"(v.y) : "r"(address));
  return v;
}

__device__ inline uint4 load_shared_16(std::uint32_t address) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(address));
  return v;
}

__device__ inline void store_shared(std::uint32_t address, std::uint32_t v) {
  asm volatile("st.shared.u32 [%0], %1;" ::"r"(address), "r"(v) : "memory");
}

__device__ inline void store_shared_8(std::uint32_t address, std::uint32_t x, std::uint32_t y) {
  asm volatile("st.shared.v2.u32 [%0], {%1,%2};" ::"r"(address), "r"(x), "r"(y) : "memory");
}

__device__ inline void store_shared_16(std::uint32_t address, std::uint32_t x, std::uint32_t y,
                                       std::uint32_t z, std::uint32_t w) {
  asm volatile("st.shared.v4.u32 [%0], {%1,%2,%3,%4};" ::"r"(address), "r"(x), "r"(y), "r"(z), "r"(w)
               : "memory");
}

/// \brief Four 8 x 8 tiles of 16-bit elements; lane l gives the address of row l % 8 of tile l / 8.
__device__ inline void load_matrix(std::uint32_t (&v)[4], std::uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3])
               : "r"(address));
}

/// \brief The same with each tile transposed.
__device__ inline void load_matrix_transposed(std::uint32_t (&v)[4], std::uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3])
               : "r"(address));
}

/// \brief 16 bytes that are read once: they go past the first-level cache. Volatile, so that it stays as
/// early as written.
__device__ inline uint4 load_once(const void* data) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(data));
  return v;
}

/// \brief Starts a copy of 16 bytes to shared memory; zeros where `inside` is false.
__device__ inline void copy_async(std::uint32_t to, const void* from, bool inside) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(inside ? 16 : 0)
               : "memory");
}

/// \brief Closes a group of copies.
__device__ inline void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

/// \brief Waits until at most `Groups` groups of copies of this thread are under way.
template <int Groups>
__device__ void copies_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Groups) : "memory");
}

}  // namespace pesc::gpu::detail
