// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/gpu/detail/expert_rows.cuh"
#include "pesc/gpu/detail/warp.cuh"
#include "pesc/moe/routing_types.hpp"

namespace pesc::gpu::detail {

using device_groups = slot_groups<device_space>;

/// Lane j of a team keeps the j-th best expert.
template <int Threads>
__global__ void __launch_bounds__(team_block)
    top_k_softmax_kernel(device_matrix<const float> logits, int k, bool over_all, std::int32_t* expert,
                         float* gate) {
  const index_t token = team<Threads>::row();
  const int rank = team<Threads>::rank();
  const bool inside = token < logits.rows;
  const float* row = logits.row(token);
  const index_t experts = inside ? logits.cols : 0;
  ranked_expert last = before_all();
  ranked_expert mine{-INFINITY, 0};
  for (int j = 0; j < k; ++j) {
    last = next_expert<Threads>(row, experts, last);
    if (rank == j) mine = last;
  }
  softmax_terms s{};
  if (over_all) {
    s = softmax_of<Threads, 1>(row, experts);
  } else {
    s.top = warp_reduce<Threads>(mine.value, largest_of{});
    s.total = warp_reduce<Threads>(rank < k ? exp_below(mine.value, s.top) : 0.0f, sum_of{});
  }
  if (!inside || rank >= k) return;
  expert[token * k + rank] = mine.expert;
  gate[token * k + rank] = probability(s, mine.value);
}

template <int Threads>
__global__ void __launch_bounds__(team_block)
    top_k_softmax_backward_kernel(device_matrix<const float> logits, int k, bool over_all,
                                  const std::int32_t* expert, const float* gate, const float* dgate,
                                  device_matrix<float> dlogits) {
  const index_t token = team<Threads>::row();
  const int rank = team<Threads>::rank();
  const index_t experts = token < logits.rows ? logits.cols : 0;
  const bool chosen = token < logits.rows && rank < k;
  const float g = chosen ? gate[token * k + rank] : 0.0f;
  const float d = chosen ? dgate[token * k + rank] : 0.0f;
  const float mean = warp_reduce<Threads>(chosen ? g * d : 0.0f, sum_of{});
  if (over_all) {
    const softmax_terms s = softmax_of<Threads, 1>(logits.row(token), experts);
    for (index_t e = rank; e < experts; e += Threads)
      dlogits(token, e) -= probability(s, logits(token, e)) * mean;
    __syncwarp();
  }
  if (chosen) dlogits(token, expert[token * k + rank]) += g * (over_all ? d : d - mean);
}

/// \brief Positions 0 to count - 1, to be ordered by their keys.
struct sort_task {
  const std::int32_t* keys;
  index_t count;
  int passes;             ///< bytes of the keys that are not all zero
  std::int32_t* order;    ///< [count], the result
  std::int32_t* scratch;  ///< [count]
};

/// \brief Number of each value of a byte that each warp has met; then the place where its next such position
/// goes.
template <int Warps>
struct digit_places {
  static constexpr int digits = 256;
  int of_warp[Warps][digits];
  int first[digits];

  /// \brief Turns counts into places: by digit, then by warp. Called by the whole block.
  __device__ void accumulate() {
    const auto digit = static_cast<int>(threadIdx.x);
    if (digit < digits) {
      int sum = 0;
      for (int warp = 0; warp < Warps; ++warp) {
        const int count = of_warp[warp][digit];
        of_warp[warp][digit] = sum;
        sum += count;
      }
      first[digit] = sum;
    }
    __syncthreads();
    if (threadIdx.x < 32) {
      constexpr int per_lane = digits / 32;
      int* mine = first + threadIdx.x * per_lane;
      int sum = 0;
      for (int i = 0; i < per_lane; ++i) sum += mine[i];
      int before = inclusive_sum(sum) - sum;
      for (int i = 0; i < per_lane; ++i) {
        const int count = mine[i];
        mine[i] = before;
        before += count;
      }
    }
    __syncthreads();
  }
};

/// \brief One stable pass by the byte of the keys at `shift`; `from` is null for the order 0, 1, 2, ...
template <int Warps>
__device__ void sort_by_digit(const sort_task& task, int shift, const std::int32_t* from, std::int32_t* to,
                              digit_places<Warps>& places) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const index_t slice = round_up(ceil_div(task.count, Warps), 32);
  const index_t begin = warp * slice, end = min(begin + slice, task.count);
  for (int i = lane_of_warp(); i < places.digits; i += 32) places.of_warp[warp][i] = 0;
  __syncwarp();
  // Lanes that meet the same digit act as one: the first of them counts for all.
  const auto for_slice = [&](auto use) {
    for (index_t first = begin; first < end; first += 32) {
      const index_t i = first + lane_of_warp();
      const bool inside = i < end;
      const std::int32_t position = !inside ? 0 : from == nullptr ? static_cast<std::int32_t>(i) : from[i];
      const int digit = inside ? task.keys[position] >> shift & 0xFF : -1;
      const unsigned same = __match_any_sync(whole_warp, digit);
      if (inside) use(position, digit, count_before(same));
      __syncwarp();
      if (inside && count_before(same) == 0) places.of_warp[warp][digit] += __popc(same);
      __syncwarp();
    }
  };
  for_slice([](std::int32_t, int, int) {});
  __syncthreads();
  places.accumulate();
  for_slice([&](std::int32_t position, int digit, int before) {
    to[places.first[digit] + places.of_warp[warp][digit] + before] = position;
  });
  __syncthreads();
}

/// Block 0 orders slots by expert, block 1 by token: radix sort from the lowest byte up, or nothing for keys
/// that ascend.
template <int Threads>
__global__ void __launch_bounds__(Threads) sort_slots_kernel(sort_task by_expert, sort_task by_token) {
  __shared__ digit_places<Threads / 32> places;
  const sort_task task = blockIdx.x == 0 ? by_expert : by_token;
  bool ascending = true;
  for (index_t i = threadIdx.x; i + 1 < task.count; i += Threads)
    ascending &= task.keys[i] <= task.keys[i + 1];
  if (__syncthreads_and(ascending) != 0) {
    for (index_t i = threadIdx.x; i < task.count; i += Threads) task.order[i] = static_cast<std::int32_t>(i);
    return;
  }
  const std::int32_t* from = nullptr;
  for (int pass = 0; pass < task.passes; ++pass) {
    std::int32_t* to = (task.passes - pass) % 2 == 1 ? task.order : task.scratch;
    sort_by_digit(task, 8 * pass, from, to, places);
    from = to;
  }
}

/// \brief First place in `order` whose key is not below `key`.
__device__ inline std::int32_t first_place(const std::int32_t* keys, const std::int32_t* order, index_t count,
                                           index_t key) {
  index_t begin = 0, end = count;
  while (begin < end) {
    const index_t middle = (begin + end) / 2;
    if (keys[order[middle]] < key)
      begin = middle + 1;
    else
      end = middle;
  }
  return static_cast<std::int32_t>(begin);
}

/// What follows from both orders, one thread for each slot, expert and token.
template <int Threads>
__global__ void __launch_bounds__(Threads)
    group_by_expert_kernel(device_vector<const std::int32_t> token, device_vector<const std::int32_t> expert,
                           device_groups groups) {
  const index_t i = blockIdx.x * index_t{Threads} + threadIdx.x;
  if (i < expert.size) {
    const std::int32_t slot = groups.slots[i];
    groups.slot_of[slot] = expert[slot] < groups.experts ? static_cast<std::int32_t>(i) : -1;
    groups.token_of[i] = token[slot];
  }
  if (i <= groups.experts)
    groups.expert_offsets[i] = first_place(expert.data, groups.slots.data, expert.size, i);
  if (i <= groups.tokens)
    groups.token_offsets[i] = first_place(token.data, groups.token_slots.data, token.size, i);
}

/// \param scale  [rows of y], or null: 1
template <int Width>
__global__ void gather_rows_kernel(device_matrix<const float> x, const std::int32_t* rows, const float* scale,
                                   device_matrix<float> y) {
  for_packs<Width>(y.rows, y.cols, [&](index_t i, index_t col) {
    auto values = load_pack<Width>(x.row(rows[i]) + col);
    if (scale != nullptr) {
#pragma unroll
      for (int c = 0; c < Width; ++c) values[c] *= scale[i];
    }
    store_pack(y.row(i) + col, values);
  });
}

/// \brief sum += the rows of the kept slots of a token times their gates (1 where `gate` is null), in the
/// order of slots.
template <int Width>
__device__ void add_slots(const device_groups& groups, index_t token, index_t col,
                          device_matrix<const float> rows, const float* gate, pack<float, Width>& sum) {
  const std::int32_t end = groups.token_offsets[token + 1];
  for (std::int32_t i = groups.token_offsets[token]; i < end; ++i) {
    const std::int32_t slot = groups.token_slots[i];
    const std::int32_t row = groups.slot_of[slot];
    if (row < 0) continue;
    const float weight = gate == nullptr ? 1.0f : gate[slot];
    const auto values = load_pack<Width>(rows.row(row) + col);
#pragma unroll
    for (int c = 0; c < Width; ++c) sum[c] += weight * values[c];
  }
}

/// \brief Sum of the gates of the kept slots of a token.
__device__ inline float sum_gates(const device_groups& groups, index_t token, const float* gate) {
  float sum = 0.0f;
  for (std::int32_t i = groups.token_offsets[token]; i < groups.token_offsets[token + 1]; ++i) {
    const std::int32_t slot = groups.token_slots[i];
    if (groups.slot_of[slot] >= 0) sum += gate[slot];
  }
  return sum;
}

template <int Width>
__global__ void combine_rows_kernel(device_matrix<const float> h, device_matrix<const float> e,
                                    const float* gate, device_groups groups, bool gate_sum,
                                    device_matrix<float> y) {
  for_packs<Width>(y.rows, y.cols, [&](index_t token, index_t col) {
    const float rho = gate_sum ? sum_gates(groups, token, gate) : 1.0f;
    auto sum = load_pack<Width>(h.row(token) + col);
#pragma unroll
    for (int c = 0; c < Width; ++c) sum[c] *= rho;
    add_slots<Width>(groups, token, col, e, gate, sum);
    store_pack(y.row(token) + col, sum);
  });
}

template <int Width>
__global__ void sum_slots_kernel(device_groups groups, device_matrix<const float> rows,
                                 device_matrix<float> y) {
  for_packs<Width>(y.rows, y.cols, [&](index_t token, index_t col) {
    auto sum = load_pack<Width>(y.row(token) + col);
    add_slots<Width>(groups, token, col, rows, nullptr, sum);
    store_pack(y.row(token) + col, sum);
  });
}

/// Block b: probabilities of each expert, then the squared log-sum-exp and the number of rows, of part b of
/// the rows.
template <int Threads>
__global__ void __launch_bounds__(part_threads)
    balance_accumulate_kernel(device_matrix<const float> logits, device_vector<const std::uint8_t> valid,
                              device_matrix<double> parts) {
  __shared__ softmax_terms terms[part_rows];  // total 0 where the row does not count
  const index_t begin = blockIdx.x * index_t{part_rows};
  const index_t experts = logits.cols;
  for (int row = static_cast<int>(threadIdx.x) / Threads; row < part_rows; row += part_threads / Threads) {
    const bool counted = begin + row < logits.rows && counts(valid, begin + row);
    const softmax_terms s = softmax_of<Threads, 1>(logits.row(begin + row), counted ? experts : 0);
    if (team<Threads>::rank() == 0) terms[row] = s;
  }
  __syncthreads();
  double* part = parts.row(blockIdx.x);
  const int end = static_cast<int>(min(index_t{part_rows}, logits.rows - begin));
  sum_rows_of_part(
      0, end, experts,
      [&](int row, index_t e) {
        const softmax_terms s = terms[row];
        return s.total == 0.0f ? 0.0 : static_cast<double>(probability(s, logits(begin + row, e)));
      },
      part);
  const bool counted = threadIdx.x < part_rows && terms[threadIdx.x].total != 0.0f;
  const double lse = counted ? static_cast<double>(log_total(terms[threadIdx.x])) : 0.0;
  const double squares = block_reduce<part_threads>(lse * lse, sum_of{});
  const double rows = block_reduce<part_threads>(counted ? 1.0 : 0.0, sum_of{});
  if (threadIdx.x == 0) {
    part[experts] = squares;
    part[experts + 1] = rows;
  }
}

/// Block e adds what concerns expert e, the last block the totals.
template <int Threads>
__global__ void __launch_bounds__(Threads)
    balance_sums_kernel(device_matrix<const double> parts, device_vector<const std::int32_t> token,
                        device_vector<const std::int32_t> expert, device_vector<const std::uint8_t> valid,
                        balance_sums<device_space> sums) {
  static_assert(Threads == part_threads);
  const index_t experts = parts.cols - 2, e = blockIdx.x;
  const double sum = sum_parts(parts, e);
  if (e == experts) {
    const double rows = sum_parts(parts, experts + 1);
    if (threadIdx.x == 0) {
      sums.totals[1] += sum;
      sums.totals[0] += rows;
    }
    return;
  }
  const int count = count_slots(token, expert, valid, e);
  if (threadIdx.x == 0) {
    sums.probabilities[e] += sum;
    sums.counts[e] += count;
  }
}

/// Block e counts for expert e.
template <int Threads>
__global__ void __launch_bounds__(Threads)
    expert_load_kernel(device_vector<const std::int32_t> token, device_vector<const std::int32_t> expert,
                       device_vector<const std::uint8_t> valid, std::int32_t* load) {
  static_assert(Threads == part_threads);
  const int count = count_slots(token, expert, valid, blockIdx.x);
  if (threadIdx.x == 0) load[blockIdx.x] += count;
}

template <int Threads>
__global__ void __launch_bounds__(Threads)
    balance_fractions_kernel(balance_sums<device_space> sums, double divisor,
                             device_vector<float> fractions) {
  const index_t e = blockIdx.x * index_t{Threads} + threadIdx.x;
  if (e >= fractions.size) return;
  const double rows = sums.totals[0];
  fractions[e] = rows > 0.0 ? static_cast<float>(sums.counts[e] / rows / divisor) : 0.0f;
}

template <int Threads>
__global__ void __launch_bounds__(team_block)
    balance_backward_kernel(device_matrix<const float> logits, device_vector<const std::uint8_t> valid,
                            const float* f, float scale, float z_scale, device_matrix<float> dlogits,
                            const double* rows) {
  if (rows != nullptr) {
    if (rows[0] <= 0.0) return;
    scale = static_cast<float>(static_cast<double>(scale) / rows[0]);
    z_scale = static_cast<float>(static_cast<double>(z_scale) / rows[0]);
  }
  const index_t t = team<Threads>::row();
  const index_t experts = t < logits.rows && counts(valid, t) ? logits.cols : 0;
  const softmax_terms s = softmax_of<Threads, 1>(logits.row(t), experts);
  float mean = 0.0f;
  for (index_t e = team<Threads>::rank(); e < experts; e += Threads)
    mean += f[e] * probability(s, logits(t, e));
  mean = warp_reduce<Threads>(mean, sum_of{});
  // A coefficient of zero must not meet an infinite log-sum-exp.
  const float z = z_scale == 0.0f ? 0.0f : z_scale * log_total(s);
  for (index_t e = team<Threads>::rank(); e < experts; e += Threads)
    dlogits(t, e) += probability(s, logits(t, e)) * (scale * (f[e] - mean) + z);
}

}  // namespace pesc::gpu::detail
