// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/gpu/detail/reduce_warp.cuh"

namespace pesc::gpu::detail {

[[nodiscard]] __device__ inline int lane_of_warp() { return static_cast<int>(threadIdx.x) % 32; }

/// \brief The lanes of `lanes` before this one.
[[nodiscard]] __device__ inline int count_before(unsigned lanes) {
  return __popc(lanes & ((1u << lane_of_warp()) - 1u));
}

/// \brief Sum over this lane and those before it.
[[nodiscard]] __device__ inline int inclusive_sum(int value) {
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const int before = __shfl_up_sync(whole_warp, value, static_cast<unsigned>(distance));
    if (lane_of_warp() >= distance) value += before;
  }
  return value;
}

}  // namespace pesc::gpu::detail
