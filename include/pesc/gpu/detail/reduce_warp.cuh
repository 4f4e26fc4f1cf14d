// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/core/types.hpp"

namespace pesc::gpu::detail {

inline constexpr unsigned whole_warp = 0xFFFFFFFFu;

/// \brief Threads of a block whose rows are shared out by `team`.
inline constexpr int team_block = 256;

struct sum_of {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};

/// \brief The larger number; NaN counts as missing.
struct largest_of {
  __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

/// \brief Reduces over each group of `Lanes` neighbouring lanes; every lane gets the same bits.
///
/// All lanes of the warp must take part. The order of operations is that of a tree, whatever the schedule.
template <int Lanes = 32, class T, class Op>
__device__ T warp_reduce(T value, Op op) {
#pragma unroll
  for (int distance = Lanes / 2; distance > 0; distance /= 2)
    value = op(value, __shfl_xor_sync(whole_warp, value, distance));
  return value;
}

/// \brief Reduces over a block of `Threads` threads in a fixed order; every thread gets the same bits.
template <int Threads, class T, class Op>
__device__ T block_reduce(T value, Op op) {
  static_assert(Threads % 32 == 0);
  __shared__ T parts[Threads / 32];
  value = warp_reduce(value, op);
  __syncthreads();  // whoever still reads the parts of a reduction before
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = value;
  __syncthreads();
  T result = parts[0];
#pragma unroll
  for (int i = 1; i < Threads / 32; ++i) result = op(result, parts[i]);
  return result;
}

/// \brief `Threads` threads that work on one row together: a part of a warp, or a whole block of `team_block`.
template <int Threads>
struct team {
  static_assert(Threads <= 32 || Threads == team_block);

  static __device__ int rank() { return static_cast<int>(threadIdx.x) % Threads; }

  /// \brief The row of this thread; may lie beyond the last one, whose threads still take part in reductions.
  static __device__ index_t row() { return (blockIdx.x * index_t{team_block} + threadIdx.x) / Threads; }

  template <class T, class Op>
  static __device__ T reduce(T value, Op op) {
    if constexpr (Threads <= 32)
      return warp_reduce<Threads>(value, op);
    else
      return block_reduce<Threads>(value, op);
  }
};

/// \brief What a softmax reads where a row holds NaN: the smallest value there is.
__device__ inline float no_nan(float x) { return x != x ? -INFINITY : x; }

/// \brief exp(x - top), with 1 for the largest itself, so that rows of infinities stay defined.
__device__ inline float exp_below(float x, float top) { return x == top ? 1.0f : expf(x - top); }

}  // namespace pesc::gpu::detail
