// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/core/views.hpp"
#include "pesc/gpu/detail/reduce_warp.cuh"
#include "pesc/quant/format.hpp"
#include "pesc/quant/scales.hpp"

// The bits of `pesc::quantize`: each operation is rounded by itself, in the order of quant/quantize.hpp.

namespace pesc::gpu::detail {

/// \brief The largest float; anything above it, and NaN, cannot be quantised.
inline constexpr float largest_float = 3.402823466e38f;

/// \brief What a block is divided by, see the structure of this name in quant/quantize.hpp.
struct device_block_divisor {
  float stored, divisor;
  bool full;

  __device__ device_block_divisor(float absmax, bool is_full) : full{is_full} {
    const float least = fmaxf(absmax, 1e-38f);
    stored = full ? absmax : least;
    divisor = full ? __fdiv_rn(1.0f, least) : least;
  }
  __device__ float operator()(float x) const { return full ? __fmul_rn(x, divisor) : __fdiv_rn(x, divisor); }
};

/// \brief Number of thresholds below `u`, which are sorted.
__device__ inline int rank_of(const float* thresholds, float u) {
  int rank = 0;
#pragma unroll
  for (int step = 8; step > 0; step /= 2)
    if (u > thresholds[rank + step - 1]) rank += step;
  return rank;
}

/// \brief Codes and scales, one block of weights a warp; blocks of an even number of weights.
///
/// \param first_bad  becomes the position of the first weight that is not finite
template <int Threads, class T>
__global__ void __launch_bounds__(Threads)
    quantize_blocks_kernel(const __grid_constant__ format_info info,
                           matrix_view<const T, device_space> weight, std::uint8_t* codes, float* absmax,
                           unsigned long long* first_bad) {
  __shared__ float thresholds[15];
  __shared__ std::uint8_t order[16];
  if (threadIdx.x < 16) order[threadIdx.x] = info.order[threadIdx.x];
  if (threadIdx.x < 15) thresholds[threadIdx.x] = info.thresholds[threadIdx.x];
  __syncthreads();
  const index_t n = weight.size();
  const index_t block = blockIdx.x * index_t{Threads / 32} + threadIdx.x / 32;
  const index_t begin = block * info.block;
  if (begin >= n) return;
  const index_t end = min(begin + info.block, n);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const auto value = [&](index_t i) {
    return to_float(weight.stride == weight.cols ? weight.data[i] : weight(i / weight.cols, i % weight.cols));
  };
  float largest = 0.0f;
  for (index_t i = begin + lane; i < end; i += 32) {
    const float x = fabsf(value(i));
    if (!(x <= largest_float)) atomicMin(first_bad, static_cast<unsigned long long>(i));
    largest = fmaxf(largest, x);
  }
  largest = warp_reduce(largest, largest_of{});
  const device_block_divisor scaled(largest, end - begin == info.block);
  if (lane == 0) absmax[block] = scaled.stored;
  for (index_t i = begin + 2 * lane; i < end; i += 64) {
    const int first = order[rank_of(thresholds, scaled(value(i)))];
    const int second = order[rank_of(thresholds, i + 1 < end ? scaled(value(i + 1)) : 0.0f)];
    codes[i / 2] = static_cast<std::uint8_t>(first << 4 | second);
  }
}

/// \brief Second level of double quantisation, 256 scales a warp.
template <int Threads>
__global__ void __launch_bounds__(Threads)
    quantize_scales_kernel(const float* values, index_t n, float offset, const float* map, float* absmax,
                           std::uint8_t* codes) {
  const index_t block = blockIdx.x * index_t{Threads / 32} + threadIdx.x / 32;
  const index_t begin = block * nested_block;
  if (begin >= n) return;
  const index_t end = min(begin + nested_block, n);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  float largest = 0.0f;
  for (index_t i = begin + lane; i < end; i += 32)
    largest = fmaxf(largest, fabsf(__fsub_rn(values[i], offset)));
  largest = warp_reduce(largest, largest_of{});
  const device_block_divisor scaled(largest, end - begin == nested_block);
  if (lane == 0) absmax[block] = scaled.stored;
  for (index_t i = begin + lane; i < end; i += 32)
    codes[i] = encode_dynamic(map, scaled(__fsub_rn(values[i], offset)));
}

/// \brief Numbers in row order.
template <int Threads, class S, class T>
__global__ void __launch_bounds__(Threads)
    store_numbers_kernel(matrix_view<const S, device_space> weight, T* out) {
  const index_t i = blockIdx.x * index_t{Threads} + threadIdx.x;
  if (i < weight.size()) out[i] = from_float<T>(to_float(weight(i / weight.cols, i % weight.cols)));
}

}  // namespace pesc::gpu::detail
