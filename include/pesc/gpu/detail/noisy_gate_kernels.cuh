// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/gpu/detail/expert_rows.cuh"
#include "pesc/moe/routing_types.hpp"

namespace pesc::gpu::detail {

__device__ inline float softplus(float x) { return fmaxf(x, 0.0f) + log1pf(expf(-fabsf(x))); }

__device__ inline float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

/// \brief Two normal numbers from two words (Box and Muller, 1958).
__device__ inline void normal_pair(std::uint32_t first, std::uint32_t second, float* out) {
  // 1 - u is in (0, 1], so that the logarithm is finite.
  const float radius = sqrtf(-2.0f * logf(1.0f - to_unit(first)));
  const float angle = 6.2831853071795865f * to_unit(second);
  out[0] = radius * cosf(angle);
  out[1] = radius * sinf(angle);
}

/// A thread takes the four columns that share one draw, in accesses of `Width`.
template <int Width>
__global__ void fill_normal_kernel(random_stream stream, const step_values* values, device_matrix<float> y) {
  const random_stream s = current(stream, values);
  for_packs<4>(y.rows, y.cols, [&](index_t row, index_t col) {
    const auto words = s.words(static_cast<std::uint32_t>(row), static_cast<std::uint32_t>(col / 4));
    pack<float, 4> numbers;
    normal_pair(words.elements[0], words.elements[1], numbers.values);
    normal_pair(words.elements[2], words.elements[3], numbers.values + 2);
    if constexpr (Width == 4) {
      store_pack(y.row(row) + col, numbers);
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        if (col + i < y.cols) y(row, col + i) = numbers[i];
    }
  });
}

/// \brief Calls `body(row, expert)` for the element of this thread.
template <class Body>
__device__ void for_elements(index_t rows, index_t cols, Body body) {
  const index_t i = blockIdx.x * index_t{blockDim.x} + threadIdx.x;
  if (i < rows * cols) body(i / cols, i % cols);
}

template <int Threads>
__global__ void __launch_bounds__(Threads)
    noisy_logits_kernel(device_matrix<const float> clean, device_matrix<const float> raw,
                        device_matrix<const float> noise, float epsilon, device_matrix<float> noisy) {
  for_elements(clean.rows, clean.cols, [&](index_t t, index_t e) {
    noisy(t, e) = clean(t, e) + noise(t, e) * (softplus(raw(t, e)) + epsilon);
  });
}

template <int Threads>
__global__ void __launch_bounds__(Threads)
    noisy_logits_backward_kernel(device_matrix<const float> raw, device_matrix<const float> noise,
                                 device_matrix<const float> dnoisy, device_matrix<float> dclean,
                                 device_matrix<float> draw) {
  for_elements(raw.rows, raw.cols, [&](index_t t, index_t e) {
    const float d = dnoisy(t, e);
    dclean(t, e) += d;
    draw(t, e) += d * noise(t, e) * sigmoid(raw(t, e));
  });
}

using device_load_inputs = noisy_load_inputs<device_space>;

/// \brief The experts whose noisy logits are thresholds of a row: the k-th best, and the best that is not
/// chosen.
struct load_thresholds {
  std::int32_t last_in;
  std::int32_t first_out;
};

/// \brief Every lane of the team gets them; for a row that is not there or does not count, nothing of sense.
template <int Threads>
__device__ load_thresholds thresholds_of(const device_load_inputs& in, index_t row, bool counted) {
  ranked_expert last = before_all();
  load_thresholds result{};
  for (int j = 0; j <= in.k; ++j) {
    result.last_in = last.expert;
    last = next_expert<Threads>(in.noisy.row(row), counted ? in.noisy.cols : 0, last);
  }
  result.first_out = last.expert;
  return result;
}

/// \brief Terms of the load of one expert for one row.
struct load_term {
  float sigma;
  float z;      ///< (clean - threshold) / sigma
  bool chosen;  ///< whether the threshold is the best expert that is not chosen
};

__device__ inline load_term load_of(const device_load_inputs& in, index_t t, index_t e,
                                    const load_thresholds& best) {
  const float sigma = softplus(in.raw(t, e)) + in.epsilon;
  const float tested = in.indicator == load_indicator::llama_moe ? in.noise(t, e) * sigma : in.noisy(t, e);
  const bool chosen = tested > in.noisy(t, best.first_out);
  const std::int32_t threshold = chosen ? best.first_out : best.last_in;
  return {sigma, (in.clean(t, e) - in.noisy(t, threshold)) / sigma, chosen};
}

/// Block b: the load of each expert from part b of the rows.
template <int Threads>
__global__ void __launch_bounds__(part_threads)
    noisy_load_kernel(device_load_inputs in, device_matrix<double> parts) {
  __shared__ load_thresholds best[part_rows];  // last_in is -1 where the row does not count
  const index_t begin = blockIdx.x * index_t{part_rows};
  for (int row = static_cast<int>(threadIdx.x) / Threads; row < part_rows; row += part_threads / Threads) {
    const bool counted = begin + row < in.clean.rows && counts(in.valid, begin + row);
    const load_thresholds mine = thresholds_of<Threads>(in, begin + row, counted);
    if (team<Threads>::rank() == 0) best[row] = counted ? mine : load_thresholds{-1, -1};
  }
  __syncthreads();
  const int end = static_cast<int>(min(index_t{part_rows}, in.clean.rows - begin));
  sum_rows_of_part(
      0, end, in.clean.cols,
      [&](int row, index_t e) {
        if (best[row].last_in < 0) return 0.0;
        const auto z = static_cast<double>(load_of(in, begin + row, e, best[row]).z);
        return 0.5 * erfc(-z * 0.70710678118654752);
      },
      parts.row(blockIdx.x));
}

/// Block e adds the parts of expert e.
template <int Threads>
__global__ void __launch_bounds__(Threads)
    noisy_load_sums_kernel(device_matrix<const double> parts, double* load) {
  static_assert(Threads == part_threads);
  const double sum = sum_parts(parts, blockIdx.x);
  if (threadIdx.x == 0) load[blockIdx.x] += sum;
}

template <int Threads>
__global__ void __launch_bounds__(team_block)
    noisy_load_backward_kernel(device_load_inputs in, const float* dload, device_matrix<float> dclean,
                               device_matrix<float> draw, device_matrix<float> dnoisy) {
  const index_t t = team<Threads>::row();
  const bool counted = t < in.clean.rows && counts(in.valid, t);
  const load_thresholds best = thresholds_of<Threads>(in, t, counted);
  float to_first_out = 0.0f, to_last_in = 0.0f;
  for (index_t e = team<Threads>::rank(); e < (counted ? in.clean.cols : 0); e += Threads) {
    const load_term term = load_of(in, t, e, best);
    const float density = 0.39894228040143268f * expf(-0.5f * term.z * term.z);
    const float d = dload[e] * density / term.sigma;
    dclean(t, e) += d;
    draw(t, e) -= d * term.z * sigmoid(in.raw(t, e));
    (term.chosen ? to_first_out : to_last_in) += d;
  }
  to_first_out = warp_reduce<Threads>(to_first_out, sum_of{});
  to_last_in = warp_reduce<Threads>(to_last_in, sum_of{});
  if (!counted || team<Threads>::rank() != 0) return;
  dnoisy(t, best.first_out) -= to_first_out;
  dnoisy(t, best.last_in) -= to_last_in;
}

template <int Threads>
__global__ void __launch_bounds__(Threads)
    mask_slots_kernel(const std::int32_t* token, device_vector<const std::int32_t> expert,
                      const std::uint8_t* valid, std::int32_t experts, std::int32_t* counted) {
  const index_t s = blockIdx.x * index_t{Threads} + threadIdx.x;
  if (s < expert.size) counted[s] = valid[token[s]] != 0 ? expert[s] : experts;
}

/// Block e sums for expert e.
template <int Threads>
__global__ void __launch_bounds__(Threads)
    gate_totals_kernel(device_vector<const std::int32_t> expert, const float* gate, double* importance,
                       double* load) {
  double sum = 0.0;
  int count = 0;
  for (index_t s = threadIdx.x; s < expert.size; s += Threads) {
    if (expert[s] != static_cast<std::int32_t>(blockIdx.x)) continue;
    sum += static_cast<double>(gate[s]);
    if (gate[s] > 0.0f) ++count;
  }
  sum = block_reduce<Threads>(sum, sum_of{});
  count = block_reduce<Threads>(count, sum_of{});
  if (threadIdx.x != 0) return;
  importance[blockIdx.x] += sum;
  load[blockIdx.x] += count;
}

/// \brief Mean and unbiased variance of at least two numbers.
struct moments {
  double mean;
  double variance;
};

/// \brief By one block; every thread gets them.
template <int Threads>
__device__ moments moments_of(device_vector<const double> v) {
  const auto n = static_cast<double>(v.size);
  double sum = 0.0;
  for (index_t e = threadIdx.x; e < v.size; e += Threads) sum += v[e];
  const double mean = block_reduce<Threads>(sum, sum_of{}) / n;
  double squares = 0.0;
  for (index_t e = threadIdx.x; e < v.size; e += Threads) squares += (v[e] - mean) * (v[e] - mean);
  return {mean, block_reduce<Threads>(squares, sum_of{}) / (n - 1.0)};
}

/// \brief Keeps the square of a mean away from zero in a division.
inline constexpr double least_square = 1e-10;

template <int Threads>
__global__ void __launch_bounds__(Threads) cv_squared_kernel(device_vector<const double> v, double* out) {
  double result = 0.0;
  if (v.size > 1) {
    const moments m = moments_of<Threads>(v);
    result = m.variance / (m.mean * m.mean + least_square);
  }
  if (threadIdx.x == 0) out[0] = result;
}

template <int Threads>
__global__ void __launch_bounds__(Threads)
    cv_squared_gradient_kernel(device_vector<const double> v, double scale, float* dv) {
  if (v.size <= 1) {
    if (threadIdx.x < v.size) dv[threadIdx.x] = 0.0f;
    return;
  }
  const moments m = moments_of<Threads>(v);
  const auto n = static_cast<double>(v.size);
  const double d = m.mean * m.mean + least_square;
  for (index_t e = threadIdx.x; e < v.size; e += Threads)
    dv[e] = static_cast<float>(
        scale * (2.0 * (v[e] - m.mean) / ((n - 1.0) * d) - 2.0 * m.mean * m.variance / (n * d * d)));
}

template <int Threads>
__global__ void __launch_bounds__(Threads)
    importance_backward_kernel(device_vector<const std::int32_t> expert,
                               device_vector<const float> dimportance, float* dgate) {
  const index_t s = blockIdx.x * index_t{Threads} + threadIdx.x;
  if (s < expert.size && expert[s] < dimportance.size) dgate[s] += dimportance[expert[s]];
}

}  // namespace pesc::gpu::detail
