// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/gpu/detail/elementwise_kernels.cuh"
#include "pesc/gpu/detail/reduce_warp.cuh"

namespace pesc::gpu::detail {

/// \brief Most partial results of a reduction over everything; longer inputs get longer parts.
inline constexpr index_t reduction_parts = 1024;

/// Threads along x take columns, those along y every blockDim.y-th row; their sums meet in the order of a tree.
template <int Threads>
__global__ void __launch_bounds__(Threads)
    column_sum_kernel(device_matrix<const float> x, device_vector<float> y) {
  __shared__ double sums[Threads];
  const index_t col = blockIdx.x * index_t{blockDim.x} + threadIdx.x;
  double sum = 0.0;
  if (col < x.cols) {
#pragma unroll 4
    for (index_t row = threadIdx.y; row < x.rows; row += blockDim.y) sum += static_cast<double>(x(row, col));
  }
  double* mine = sums + threadIdx.y * blockDim.x + threadIdx.x;
  *mine = sum;
  for (unsigned rows = blockDim.y / 2; rows > 0; rows /= 2) {
    __syncthreads();
    if (threadIdx.y < rows) *mine += mine[rows * blockDim.x];
  }
  if (threadIdx.y == 0 && col < x.cols) y[col] += static_cast<float>(*mine);
}

/// Block b sums the squares of elements b * part to (b + 1) * part - 1; `part` is a multiple of `Width`.
template <int Width>
__global__ void __launch_bounds__(team_block)
    squared_norm_kernel(device_vector<const float> x, index_t part, double* parts) {
  const index_t begin = blockIdx.x * part;
  const index_t end = min(begin + part, x.size);
  const index_t whole = end - (end - begin) % Width;
  double sum = 0.0;
#pragma unroll 4
  for (index_t i = begin + threadIdx.x * Width; i < whole; i += team_block * Width) {
    const auto values = load_pack<Width>(x.data + i);
#pragma unroll
    for (int k = 0; k < Width; ++k) {
      const auto value = static_cast<double>(values[k]);
      sum += value * value;
    }
  }
  if (const index_t i = whole + threadIdx.x; i < end) {
    const auto value = static_cast<double>(x[i]);
    sum += value * value;
  }
  sum = block_reduce<team_block>(sum, sum_of{});
  if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

/// out[0] = sum of the parts, by one block.
template <int Threads>
__global__ void __launch_bounds__(Threads) sum_parts_kernel(const double* parts, index_t count, double* out) {
  double sum = 0.0;
  for (index_t i = threadIdx.x; i < count; i += Threads) sum += parts[i];
  sum = block_reduce<Threads>(sum, sum_of{});
  if (threadIdx.x == 0) out[0] = sum;
}

/// Block b looks at every gridDim.x-th row; the last row has `last` columns. A part is 1 where all it saw is finite.
template <int Threads>
__global__ void __launch_bounds__(Threads)
    all_finite_kernel(device_matrix<const float> x, index_t last, std::int32_t* parts) {
  bool finite = true;
  for (index_t row = blockIdx.x; row < x.rows; row += gridDim.x) {
    const index_t cols = row + 1 < x.rows ? x.cols : last;
    for (index_t col = threadIdx.x; col < cols; col += Threads) finite &= isfinite(x(row, col)) != 0;
  }
  finite = __syncthreads_and(finite) != 0;
  if (threadIdx.x == 0) parts[blockIdx.x] = finite ? 1 : 0;
}

/// out[0] = 1 where all parts are, else 0; by one block.
template <int Threads>
__global__ void __launch_bounds__(Threads)
    all_parts_kernel(const std::int32_t* parts, index_t count, std::int32_t* out) {
  bool all = true;
  for (index_t i = threadIdx.x; i < count; i += Threads) all &= parts[i] != 0;
  all = __syncthreads_and(all) != 0;
  if (threadIdx.x == 0) out[0] = all ? 1 : 0;
}

/// \brief Calls `body(col)` for the packs of a row that fall to this thread of a team.
template <int Threads, int Width, class Body>
__device__ void for_row(index_t cols, Body body) {
  for (index_t col = team<Threads>::rank() * Width; col < cols; col += Threads * Width) body(col);
}

template <int Threads, int Width>
__global__ void __launch_bounds__(team_block)
    row_dot_kernel(device_matrix<const float> a, device_matrix<const float> b, device_vector<float> y) {
  const index_t row = team<Threads>::row();
  const bool inside = row < a.rows;
  float sum = 0.0f;
  for_row<Threads, Width>(inside ? a.cols : 0, [&](index_t col) {
    const auto u = load_pack<Width>(a.row(row) + col);
    const auto v = load_pack<Width>(b.row(row) + col);
#pragma unroll
    for (int i = 0; i < Width; ++i) sum += u[i] * v[i];
  });
  sum = team<Threads>::reduce(sum, sum_of{});
  if (inside && team<Threads>::rank() == 0) y[row] = sum;
}

/// \brief Largest element and sum of exp(x - top) of a row; the softmax of x is exp_below(x, top) / total.
struct softmax_terms {
  float top;
  float total;
};

/// \brief The terms of `cols` elements, read once; every thread of the team gets them.
template <int Threads, int Width>
__device__ softmax_terms softmax_of(const float* x, index_t cols) {
  float top = -INFINITY;
  float total = 0.0f;
  for_row<Threads, Width>(cols, [&](index_t col) {
    const auto values = load_pack<Width>(x + col);
    float larger = top;
#pragma unroll
    for (int i = 0; i < Width; ++i) larger = fmaxf(larger, values[i]);
    if (larger > top) {
      total *= exp_below(top, larger);
      top = larger;
    }
#pragma unroll
    for (int i = 0; i < Width; ++i) total += exp_below(no_nan(values[i]), top);
  });
  const float top_of_row = team<Threads>::reduce(top, largest_of{});
  return {top_of_row, team<Threads>::reduce(total * exp_below(top, top_of_row), sum_of{})};
}

template <int Threads, int Width>
__global__ void __launch_bounds__(team_block)
    softmax_rows_kernel(device_matrix<const float> x, device_matrix<float> y) {
  const index_t row = team<Threads>::row();
  const index_t cols = row < x.rows ? x.cols : 0;
  const softmax_terms s = softmax_of<Threads, Width>(x.row(row), cols);
  for_row<Threads, Width>(cols, [&](index_t col) {
    auto values = load_pack<Width>(x.row(row) + col);
#pragma unroll
    for (int i = 0; i < Width; ++i) values[i] = exp_below(no_nan(values[i]), s.top) / s.total;
    store_pack(y.row(row) + col, values);
  });
}

}  // namespace pesc::gpu::detail
