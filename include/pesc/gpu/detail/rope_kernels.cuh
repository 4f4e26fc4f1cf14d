// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/gpu/detail/elementwise_kernels.cuh"
#include "pesc/nn/rope.hpp"

namespace pesc::gpu::detail {

/// \brief Cosine and sine of an angle of any size.
///
/// In half turns, reduced in double precision: the float functions keep a table in local memory for large angles.
__device__ inline float2 cosine_and_sine(float angle) {
  const double half_turns = static_cast<double>(angle) * 0.31830988618379067154;
  float2 turn;
  sincospif(static_cast<float>(half_turns - 2.0 * rint(0.5 * half_turns)), &turn.y, &turn.x);
  return turn;
}

__device__ inline void rotate(float& u, float& v, float cosine, float sine) {
  const float old = u;
  u = old * cosine - v * sine;
  v = v * cosine + old * sine;
}

/// A block turns one row. Its angles are computed once, into shared memory: `half` cosines, then `half` sines. Threads
/// along x take pairs in accesses of `Width` elements, those along y take heads.
template <bool Neighbours, int Width>
__global__ void rope_kernel(device_matrix<float> q, const std::int32_t* positions, const float* inv_freq,
                            index_t half, float direction) {
  extern __shared__ float4 rope_turns[];
  float* cosines = reinterpret_cast<float*>(rope_turns);
  float* sines = cosines + half;
  const index_t row = blockIdx.x;
  const auto position = static_cast<float>(positions[row]);
  const unsigned threads = blockDim.x * blockDim.y;
  for (index_t i = threadIdx.y * blockDim.x + threadIdx.x; i < half; i += threads) {
    const float2 turn = cosine_and_sine(position * inv_freq[i]);
    cosines[i] = turn.x;
    sines[i] = direction * turn.y;
  }
  __syncthreads();

  float* const end = q.row(row) + q.cols;
  for (float* head = q.row(row) + threadIdx.y * 2 * half; head < end; head += blockDim.y * 2 * half) {
    if constexpr (Neighbours) {
      constexpr int count = Width == 1 ? 2 : Width;
      for (index_t i = threadIdx.x * count; i < 2 * half; i += blockDim.x * count) {
        float pairs[count];
#pragma unroll
        for (int k = 0; k < count; k += Width) {
          const auto values = load_pack<Width>(head + i + k);
#pragma unroll
          for (int l = 0; l < Width; ++l) pairs[k + l] = values[l];
        }
        const auto c = load_pack<count / 2>(cosines + i / 2);
        const auto s = load_pack<count / 2>(sines + i / 2);
#pragma unroll
        for (int k = 0; k < count; k += 2) rotate(pairs[k], pairs[k + 1], c[k / 2], s[k / 2]);
#pragma unroll
        for (int k = 0; k < count; k += Width) {
          pack<float, Width> values;
#pragma unroll
          for (int l = 0; l < Width; ++l) values[l] = pairs[k + l];
          store_pack(head + i + k, values);
        }
      }
    } else {
      for (index_t i = threadIdx.x * Width; i < half; i += blockDim.x * Width) {
        auto first = load_pack<Width>(head + i);
        auto second = load_pack<Width>(head + half + i);
        const auto c = load_pack<Width>(cosines + i);
        const auto s = load_pack<Width>(sines + i);
#pragma unroll
        for (int k = 0; k < Width; ++k) rotate(first[k], second[k], c[k], s[k]);
        store_pack(head + i, first);
        store_pack(head + half + i, second);
      }
    }
  }
}

}  // namespace pesc::gpu::detail
