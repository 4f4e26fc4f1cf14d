// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/core/views.hpp"
#include "pesc/gpu/step_values.cuh"
#include "pesc/nn/activation.hpp"

namespace pesc::gpu::detail {

template <class T>
using device_vector = vector_view<T, device_space>;
template <class T>
using device_matrix = matrix_view<T, device_space>;

/// \brief `Width` neighbouring elements, moved by one access.
template <class T, int Width>
struct alignas(Width * sizeof(T)) pack {
  T values[Width];

  __device__ T& operator[](int i) { return values[i]; }
  __device__ const T& operator[](int i) const { return values[i]; }
};

template <int Width, class T>
__device__ pack<T, Width> load_pack(const T* place) {
  return *reinterpret_cast<const pack<T, Width>*>(place);
}

template <class T, int Width>
__device__ void store_pack(T* place, const pack<T, Width>& values) {
  *reinterpret_cast<pack<T, Width>*>(place) = values;
}

/// \brief Calls `body(row, col)` for the packs of this thread: `col` is the first of `Width` columns.
///
/// Threads along x take packs of a row, those along y take rows; the grid of `map_shape` covers all packs and, with
/// strides, all rows.
template <int Width, class Body>
__device__ void for_packs(index_t rows, index_t cols, Body body) {
  const index_t col = (blockIdx.x * index_t{blockDim.x} + threadIdx.x) * Width;
  if (col >= cols) return;
  const index_t step = index_t{gridDim.y} * blockDim.y;
  for (index_t row = blockIdx.y * index_t{blockDim.y} + threadIdx.y; row < rows; row += step) body(row, col);
}

template <int Width, class T>
__global__ void fill_kernel(device_matrix<T> y, T v) {
  pack<T, Width> values;
#pragma unroll
  for (int i = 0; i < Width; ++i) values[i] = v;
  for_packs<Width>(y.rows, y.cols, [&](index_t row, index_t col) { store_pack(y.row(row) + col, values); });
}

template <int Width, class S, class T>
__global__ void copy_kernel(device_matrix<const S> x, device_matrix<T> y) {
  for_packs<Width>(y.rows, y.cols, [&](index_t row, index_t col) {
    const auto from = load_pack<Width>(x.row(row) + col);
    if constexpr (std::is_same_v<S, T>) {
      store_pack(y.row(row) + col, from);
    } else {
      pack<T, Width> to;
#pragma unroll
      for (int i = 0; i < Width; ++i) to[i] = from_float<T>(to_float(from[i]));
      store_pack(y.row(row) + col, to);
    }
  });
}

template <int Width, class A>
__global__ void activate_kernel(device_matrix<const float> x, device_matrix<float> y) {
  for_packs<Width>(y.rows, y.cols, [&](index_t row, index_t col) {
    auto values = load_pack<Width>(x.row(row) + col);
#pragma unroll
    for (int i = 0; i < Width; ++i) values[i] = A::value(values[i]);
    store_pack(y.row(row) + col, values);
  });
}

template <int Width, class A>
__global__ void activate_backward_kernel(device_matrix<const float> x, device_matrix<const float> dy,
                                         device_matrix<float> dx) {
  for_packs<Width>(dx.rows, dx.cols, [&](index_t row, index_t col) {
    const auto values = load_pack<Width>(x.row(row) + col);
    auto d = load_pack<Width>(dy.row(row) + col);
#pragma unroll
    for (int i = 0; i < Width; ++i) d[i] *= A::derivative(values[i]);
    store_pack(dx.row(row) + col, d);
  });
}

template <int Width, class A>
__global__ void gated_activate_kernel(device_matrix<const float> gate, device_matrix<const float> up,
                                      device_matrix<float> out) {
  for_packs<Width>(out.rows, out.cols, [&](index_t row, index_t col) {
    const auto g = load_pack<Width>(gate.row(row) + col);
    auto u = load_pack<Width>(up.row(row) + col);
#pragma unroll
    for (int i = 0; i < Width; ++i) u[i] *= A::value(g[i]);
    store_pack(out.row(row) + col, u);
  });
}

template <int Width, class A>
__global__ void gated_activate_backward_kernel(device_matrix<const float> gate, device_matrix<const float> up,
                                               device_matrix<const float> dout, device_matrix<float> dgate,
                                               device_matrix<float> dup) {
  for_packs<Width>(dout.rows, dout.cols, [&](index_t row, index_t col) {
    // All of a place is read before any of it is written: outputs may be inputs.
    auto g = load_pack<Width>(gate.row(row) + col);
    const auto u = load_pack<Width>(up.row(row) + col);
    auto d = load_pack<Width>(dout.row(row) + col);
#pragma unroll
    for (int i = 0; i < Width; ++i) {
      const float value = A::value(g[i]);
      g[i] = d[i] * u[i] * A::derivative(g[i]);
      d[i] *= value;
    }
    store_pack(dgate.row(row) + col, g);
    store_pack(dup.row(row) + col, d);
  });
}

template <int Width>
__global__ void add_scaled_kernel(device_matrix<const float> x, float alpha, device_matrix<float> y) {
  for_packs<Width>(y.rows, y.cols, [&](index_t row, index_t col) {
    const auto values = load_pack<Width>(x.row(row) + col);
    auto sums = load_pack<Width>(y.row(row) + col);
#pragma unroll
    for (int i = 0; i < Width; ++i) sums[i] += alpha * values[i];
    store_pack(y.row(row) + col, sums);
  });
}

template <int Width>
__global__ void add_bias_kernel(device_vector<const float> bias, device_matrix<float> y) {
  for_packs<Width>(y.rows, y.cols, [&](index_t row, index_t col) {
    const auto values = load_pack<Width>(bias.data + col);
    auto sums = load_pack<Width>(y.row(row) + col);
#pragma unroll
    for (int i = 0; i < Width; ++i) sums[i] += values[i];
    store_pack(y.row(row) + col, sums);
  });
}

/// A thread takes the four columns that share one draw, in accesses of `Width`. The mask row of row i is `row_ids[i]`,
/// or i where there are none; `keep` is 1 / (1 - p).
template <int Width>
__global__ void dropout_kernel(device_matrix<const float> x, const std::int32_t* row_ids, float p, float keep,
                               random_stream stream, const step_values* values, device_matrix<float> y) {
  const random_stream s = current(stream, values);
  for_packs<4>(y.rows, y.cols, [&](index_t row, index_t col) {
    const auto mask_row = static_cast<std::uint32_t>(row_ids == nullptr ? row : row_ids[row]);
    const auto words = s.words(mask_row, static_cast<std::uint32_t>(col / 4));
    const float* from = x.row(row) + col;
    float* to = y.row(row) + col;
#pragma unroll
    for (int at = 0; at < 4; at += Width) {
      if (col + at >= y.cols) break;
      auto kept = load_pack<Width>(from + at);
#pragma unroll
      for (int i = 0; i < Width; ++i) kept[i] = to_unit(words.elements[at + i]) >= p ? kept[i] * keep : 0.0f;
      store_pack(to + at, kept);
    }
  });
}

}  // namespace pesc::gpu::detail
