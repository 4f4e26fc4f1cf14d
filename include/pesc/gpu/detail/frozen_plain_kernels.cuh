// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/gpu/detail/dequantize_kernels.cuh"

// Products with frozen weights in float, for every shape and kind of element: 64 x 64 weights at a time are
// turned into numbers in shared memory. A result is the sum, in order, of the sums of 64 terms.

namespace pesc::gpu::detail {

/// \brief A product with a frozen weight: y (+)= x Wᵀ or x W.
struct frozen_product {
  frozen_weight w;
  matrix_view<const float, device_space> x;
  matrix_view<float, device_space> y;
  bool accumulate = false;
};

/// \brief Where the weight of (`depth`, `feature`) lies in the tile; the permutation keeps the lanes that
/// write it apart.
template <bool Transpose>
__device__ int plain_place(int depth, int feature) {
  return depth * 64 + (Transpose ? feature ^ depth % 2 * 4 : feature ^ depth / 8 % 4 * 8);
}

/// \brief Decodes the 64 rows of `group` in `cell` with 8 warps, two for each record; zeros outside of the
/// matrix.
template <bool Transpose>
__device__ void decode_plain_tile(const frozen_weight& w, const float* levels, index_t group, index_t cell,
                                  float* tile) {
  const fragment_layout& layout = w.layout;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int half = warp % 2, first_row = warp / 2 * 16 + lane / 4, first_k = half * 32 + lane % 4 * 8;
  const auto put = [&](int r, int k, float value) {
    tile[Transpose ? plain_place<true>(r, k) : plain_place<false>(k, r)] = value;
  };
  if (layout.scales_by_cell()) {
    const std::uint8_t* record = w.codes + layout.offset(group * 4 + warp / 2, cell);
    const uint2 words = *reinterpret_cast<const uint2*>(record + lane * 16 + half * 8);
#pragma unroll
    for (int lower = 0; lower < 2; ++lower) {
      const index_t row = group * 64 + first_row + lower * 8;
      const float scale = row < layout.rows ? w.scale(row, cell * 64 + first_k) : 0.0f;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const std::uint32_t code =
            (i < 4 ? words.x : words.y) >> (8 * (lower + i / 2 % 2 * 2) + i % 2 * 4) & 15;
        put(first_row + lower * 8, first_k + i, row < layout.rows ? __fmul_rn(levels[code], scale) : 0.0f);
      }
    }
    return;
  }
#pragma unroll 1
  for (int i = 0; i < 16; ++i) {
    const int r = first_row + i / 8 * 8, k = first_k + i % 8;
    const index_t row = group * 64 + r, col = cell * 64 + k;
    put(r, k, row < layout.rows && col < layout.cols ? stored_weight(w, row, col) : 0.0f);
  }
}

/// \brief 64 features of `Tokens` tokens a block of 256 threads; a thread has 4 features.
template <int Tokens, bool Transpose>
__global__ void __launch_bounds__(256)
    frozen_plain_kernel(const __grid_constant__ frozen_product p, index_t feature_tiles) {
  constexpr int each = Tokens / 16;  // tokens of a thread
  constexpr int pitch = Tokens + 4;
  __shared__ float4 weight_memory[64 * 64 / 4];
  __shared__ float4 token_memory[64 * pitch / 4];
  __shared__ float levels[16];
  float* const weights = reinterpret_cast<float*>(weight_memory);
  float* const tokens = reinterpret_cast<float*>(token_memory);
  const int thread = static_cast<int>(threadIdx.x);
  if (thread < 16) levels[thread] = p.w.levels[threadIdx.x];
  const index_t feature_tile = blockIdx.x % feature_tiles;
  const index_t first_token = blockIdx.x / feature_tiles * Tokens;
  const index_t depth = p.x.cols;
  const int feature = thread % 16 * 4, token = thread / 16 * each;

  float sum[each][4] = {};
  for (index_t chunk = 0; chunk * 64 < depth; ++chunk) {
    __syncthreads();
    decode_plain_tile<Transpose>(p.w, levels, Transpose ? chunk : feature_tile,
                                 Transpose ? feature_tile : chunk, weights);
    for (int i = thread; i < Tokens * 64; i += 256) {
      const index_t row = first_token + i / 64, col = chunk * 64 + i % 64;
      tokens[i % 64 * pitch + i / 64] = row < p.x.rows && col < depth ? p.x(row, col) : 0.0f;
    }
    __syncthreads();
    float part[each][4] = {};
#pragma unroll 8
    for (int d = 0; d < 64; ++d) {
      const float4 weight = *reinterpret_cast<const float4*>(weights + plain_place<Transpose>(d, feature));
#pragma unroll
      for (int i = 0; i < each; ++i) {
        const float x = tokens[d * pitch + token + i];
        part[i][0] += x * weight.x;
        part[i][1] += x * weight.y;
        part[i][2] += x * weight.z;
        part[i][3] += x * weight.w;
      }
    }
#pragma unroll
    for (int i = 0; i < each; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) sum[i][j] += part[i][j];
  }
#pragma unroll
  for (int i = 0; i < each; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const index_t row = first_token + token + i, col = feature_tile * 64 + feature + j;
      if (row < p.y.rows && col < p.y.cols) p.y(row, col) = sum[i][j] + (p.accumulate ? p.y(row, col) : 0.0f);
    }
}

}  // namespace pesc::gpu::detail
