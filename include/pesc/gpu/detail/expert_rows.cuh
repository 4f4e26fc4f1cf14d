// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/gpu/detail/reduce_kernels.cuh"

// What the kernels of the routers share. A row holds a number for each expert; a team of 8 or 32 lanes works
// on it.

namespace pesc::gpu::detail {

/// \brief Calls `body` with a constant: the lanes for rows of `experts` numbers; never fewer than experts to
/// choose.
template <class Body>
void with_expert_team(index_t experts, const Body& body) {
  if (experts <= 8)
    body(std::integral_constant<int, 8>{});
  else
    body(std::integral_constant<int, 32>{});
}

__device__ inline float probability(const softmax_terms& s, float x) {
  return exp_below(no_nan(x), s.top) / s.total;
}

__device__ inline float log_total(const softmax_terms& s) { return s.top + logf(s.total); }

__device__ inline bool counts(device_vector<const std::uint8_t> valid, index_t row) {
  return valid.empty() || valid[row] != 0;
}

/// \brief An expert with its number. Larger numbers come first, then lower indices; NaN counts as -infinity.
struct ranked_expert {
  float value;
  int expert;

  __device__ bool before(const ranked_expert& other) const {
    return value > other.value || (value == other.value && expert < other.expert);
  }
};

/// \brief Comes before every expert.
__device__ inline ranked_expert before_all() { return {INFINITY, -1}; }

/// \brief The first expert of a row behind `last`; every lane of the team gets it.
template <int Threads>
__device__ ranked_expert next_expert(const float* row, index_t experts, const ranked_expert& last) {
  ranked_expert next{-INFINITY, 0x7FFFFFFF};
  for (index_t e = team<Threads>::rank(); e < experts; e += Threads) {
    const ranked_expert candidate{no_nan(row[e]), static_cast<int>(e)};
    if (last.before(candidate) && candidate.before(next)) next = candidate;
  }
#pragma unroll
  for (int distance = Threads / 2; distance > 0; distance /= 2) {
    const ranked_expert other{__shfl_xor_sync(whole_warp, next.value, distance),
                              __shfl_xor_sync(whole_warp, next.expert, distance)};
    if (other.before(next)) next = other;
  }
  return next;
}

/// \brief Rows whose sums over experts make one part: few enough that a batch keeps the device busy.
inline constexpr int part_rows = 64;

/// \brief Threads of a block that forms a part, or a sum of parts.
inline constexpr int part_threads = 256;

/// \brief part[e] = sum of term(row, e) over the rows from `begin` to `end`; called by a block of `part_threads`
/// threads.
///
/// Threads take neighbouring experts, and where there are fewer of these than threads, several rows at a
/// time.
template <class Term>
__device__ void sum_rows_of_part(int begin, int end, index_t experts, Term term, double* part) {
  __shared__ double sums[part_threads];
  int width = 1;
  while (width < part_threads && width < experts) width *= 2;
  const auto thread = static_cast<int>(threadIdx.x);
  const int across = thread % width, down = thread / width, height = part_threads / width;
  for (index_t first = 0; first < experts; first += width) {
    const index_t e = first + across;
    double sum = 0.0;
    if (e < experts)
      for (int row = begin + down; row < end; row += height) sum += term(row, e);
    sums[thread] = sum;
    for (int rows = height / 2; rows > 0; rows /= 2) {
      __syncthreads();
      if (down < rows) sums[thread] += sums[thread + rows * width];
    }
    if (down == 0 && e < experts) part[e] = sums[thread];
    __syncthreads();
  }
}

/// \brief Sum of column `col` of all parts, by a block of `part_threads` threads; every thread gets it.
__device__ inline double sum_parts(device_matrix<const double> parts, index_t col) {
  double sum = 0.0;
  for (index_t i = threadIdx.x; i < parts.rows; i += part_threads) sum += parts(i, col);
  return block_reduce<part_threads>(sum, sum_of{});
}

/// \brief Number of slots of expert `e` whose token counts, by a block of `part_threads` threads; every thread
/// gets it.
__device__ inline int count_slots(device_vector<const std::int32_t> token,
                                  device_vector<const std::int32_t> expert,
                                  device_vector<const std::uint8_t> valid, index_t e) {
  int count = 0;
  for (index_t s = threadIdx.x; s < expert.size; s += part_threads)
    if (expert[s] == e && (valid.empty() || valid[token[s]] != 0)) ++count;
  return block_reduce<part_threads>(count, sum_of{});
}

}  // namespace pesc::gpu::detail
