// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/gpu/detail/attention_kernels.cuh"

// Attention of few queries over many keys, as decoding has it: it waits for memory, and a tile of items would be nearly
// empty. A block has one query row and some of the heads that share keys; where that makes too few blocks, each also has
// only a part of the keys, and a second kernel puts the parts together.

namespace pesc::gpu::detail {

/// \brief Heads of up to `Dim` elements by groups of eight lanes, which read whole 128-byte lines of a key; `Vectors` where
/// 16-byte accesses are possible.
template <int Dim, bool Vectors>
struct attention_row {
  static_assert(Dim % 32 == 0 && Dim <= 256);
  static constexpr int dim = Dim;
  static constexpr bool vectors = Vectors;
  static constexpr int chunks = Dim / 32;
  static constexpr int heads = 256 / Dim;  ///< per block; what registers hold
  static constexpr int threads = 128;
  static constexpr int groups = threads / 8;
};

/// \brief Blocks that are enough to fill a device; parts are made up to that number.
inline constexpr int attention_row_blocks = 512;

/// \brief What the softmax of a head came to over some keys, in powers of two.
struct attention_terms {
  float top;
  float total;
};

/// \brief Results over parts of the keys: [rows, heads, splits] terms, and as many rows of `Dim` sums.
struct attention_parts {
  int splits;
  attention_terms* terms;
  float* sums;
};

/// \brief exp2(from - to), with 1 where both are -infinity.
__device__ inline float fade_to(float from, float to) { return from == to ? 1.0f : exp2f(from - to); }

/// \brief The span that a query row belongs to; by whole warps. False where there is none.
__device__ inline bool find_span(device_vector<const attention_span> spans, index_t row,
                                 attention_span& span) {
  for (index_t first = 0; first < spans.size; first += 32) {
    const index_t i = first + threadIdx.x % 32;
    const bool here = i < spans.size && spans[i].query_begin <= row && row < spans[i].query_end;
    const unsigned lanes = __ballot_sync(whole_warp, here);
    if (lanes == 0) continue;
    span = spans[first + __ffs(static_cast<int>(lanes)) - 1];
    return true;
  }
  return false;
}

/// \brief The columns of this thread, 4 (lane % 8) + 32 c; zeros beyond the end of the head.
template <class Row>
__device__ void load_head(const float* head, int head_dim, pack<float, 4> (&values)[Row::chunks]) {
#pragma unroll
  for (int c = 0; c < Row::chunks; ++c) {
    const int col = static_cast<int>(threadIdx.x) % 8 * 4 + 32 * c;
    if constexpr (Row::vectors) {
      values[c] = col < head_dim ? load_pack<4>(head + col) : pack<float, 4>{};
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) values[c][i] = col + i < head_dim ? head[col + i] : 0.0f;
    }
  }
}

/// \brief Softmax of one head over the keys that a thread has seen.
template <class Row>
struct attention_row_state {
  float top = -INFINITY;
  float total = 0.0f;
  pack<float, 4> sums[Row::chunks] = {};

  /// \brief Moves to a larger `top`.
  __device__ void raise(float to) {
    const float fade = fade_to(top, to);
    top = to;
    total *= fade;
#pragma unroll
    for (int c = 0; c < Row::chunks; ++c)
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[c][i] *= fade;
  }

  /// \brief Adds a key with its score and its value.
  __device__ void add(float score, const pack<float, 4> (&value)[Row::chunks]) {
    if (score > top) raise(score);
    const float weight = fade_to(score, top);
    total += weight;
#pragma unroll
    for (int c = 0; c < Row::chunks; ++c)
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[c][i] += weight * value[c][i];
  }

  /// \brief Adds what the lane `distance` away has seen; both get the same bits.
  __device__ void merge(int distance) {
    raise(fmaxf(top, __shfl_xor_sync(whole_warp, top, distance)));
    total += __shfl_xor_sync(whole_warp, total, distance);
#pragma unroll
    for (int c = 0; c < Row::chunks; ++c)
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[c][i] += __shfl_xor_sync(whole_warp, sums[c][i], distance);
  }
};

/// \brief Where a block of `attention_row_kernel` stands.
struct attention_row_place {
  index_t row;
  int split;
  int kv_head;
  int head;   ///< first of its query heads
  int heads;  ///< number of them

  template <class Row>
  static __device__ attention_row_place of(const attention_inputs& in, int splits, Row) {
    const int blocks = (in.share + Row::heads - 1) / Row::heads;
    const int kv_head = static_cast<int>(blockIdx.y) / blocks;
    const int first = static_cast<int>(blockIdx.y) % blocks * Row::heads;
    return {blockIdx.x / splits, static_cast<int>(blockIdx.x % splits), kv_head, kv_head * in.share + first,
            min(Row::heads, in.share - first)};
  }
};

/// \brief The states of a block's heads over its keys, in the first eight lanes of each warp.
template <class Row>
__device__ void attend_row(const attention_inputs& in, const attention_row_place& at,
                           const attention_span& span, int splits,
                           attention_row_state<Row> (&states)[Row::heads]) {
  const index_t keys = span.past + at.row - span.query_begin + 1;
  const index_t begin = keys * at.split / splits;
  const index_t end = keys * (at.split + 1) / splits;
  pack<float, 4> q[Row::heads][Row::chunks];
#pragma unroll
  for (int h = 0; h < Row::heads; ++h)
    load_head<Row>(in.q.row(at.row) + (at.head + min(h, at.heads - 1)) * in.head_dim, in.head_dim, q[h]);
#pragma unroll 1
  for (index_t first = begin; first < end; first += Row::groups) {
    const index_t key = first + threadIdx.x / 8;
    const bool inside = key < end;
    const index_t key_row = span.key_begin + (inside ? key : begin);
    pack<float, 4> x[Row::chunks], y[Row::chunks];
    load_head<Row>(in.k.row(key_row) + at.kv_head * in.head_dim, in.head_dim, x);
    load_head<Row>(in.v.row(key_row) + at.kv_head * in.head_dim, in.head_dim, y);
#pragma unroll
    for (int h = 0; h < Row::heads; ++h) {
      float score = 0.0f;
#pragma unroll
      for (int c = 0; c < Row::chunks; ++c)
#pragma unroll
        for (int i = 0; i < 4; ++i) score += q[h][c][i] * x[c][i];
      score = warp_reduce<8>(score, sum_of{}) * (in.scale * log2_of_e);
      if (inside) states[h].add(score, y);
    }
  }
#pragma unroll
  for (int h = 0; h < Row::heads; ++h) {
    states[h].merge(8);
    states[h].merge(16);
  }
}

/// Writes `out` and `lse` where keys are not split, else the terms and sums of a part.
template <class Row>
__global__ void __launch_bounds__(Row::threads, Row::dim <= 128 ? 4 : 3)
    attention_row_kernel(attention_inputs in, device_matrix<float> out, device_matrix<float> lse,
                         attention_parts parts) {
  const attention_row_place at = attention_row_place::of(in, parts.splits, Row{});
  attention_span span;
  if (!find_span(in.spans, at.row, span)) return;
  attention_row_state<Row> states[Row::heads];
  attend_row<Row>(in, at, span, parts.splits, states);

  constexpr int warps = Row::threads / 32;
  __shared__ __align__(16) float sums[warps][Row::heads][Row::dim];
  __shared__ attention_terms terms[warps][Row::heads];
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (lane < 8)
#pragma unroll
    for (int h = 0; h < Row::heads; ++h) {
#pragma unroll
      for (int c = 0; c < Row::chunks; ++c)
        store_shared(&sums[warp][h][4 * lane + 32 * c], states[h].sums[c]);
      if (lane == 0) terms[warp][h] = {states[h].top, states[h].total};
    }
  __syncthreads();
  for (int i = threadIdx.x; i < at.heads * Row::dim; i += Row::threads) {
    const int h = i / Row::dim;
    const int col = i % Row::dim;
    float top = -INFINITY, total = 0.0f, sum = 0.0f;
    for (int w = 0; w < warps; ++w) top = fmaxf(top, terms[w][h].top);
    for (int w = 0; w < warps; ++w) {
      const float fade = fade_to(terms[w][h].top, top);
      total += fade * terms[w][h].total;
      sum += fade * sums[w][h][col];
    }
    if (parts.splits > 1) {
      const index_t part = (at.row * lse.cols + at.head + h) * parts.splits + at.split;
      parts.sums[part * Row::dim + col] = sum;
      if (col == 0) parts.terms[part] = {top, total};
    } else {
      if (col < in.head_dim) out(at.row, index_t{at.head + h} * in.head_dim + col) = sum / total;
      if (col == 0) lse(at.row, at.head + h) = (top + log2f(total)) * ln_of_2;
    }
  }
}

/// A block puts the parts of one row and head together; a thread has a column.
template <class Row>
__global__ void __launch_bounds__(Row::dim)
    attention_merge_kernel(attention_inputs in, device_matrix<float> out, device_matrix<float> lse,
                           attention_parts parts) {
  const index_t row = blockIdx.x;
  const index_t head = blockIdx.y;
  attention_span span;
  if (!find_span(in.spans, row, span)) return;
  const index_t first = (row * lse.cols + head) * parts.splits;
  const int col = static_cast<int>(threadIdx.x);
  float top = -INFINITY, total = 0.0f, sum = 0.0f;
  for (int s = 0; s < parts.splits; ++s) top = fmaxf(top, parts.terms[first + s].top);
  for (int s = 0; s < parts.splits; ++s) {
    const attention_terms terms = parts.terms[first + s];
    const float fade = fade_to(terms.top, top);
    total += fade * terms.total;
    sum += fade * parts.sums[(first + s) * Row::dim + col];
  }
  if (col < in.head_dim) out(row, head * in.head_dim + col) = sum / total;
  if (col == 0) lse(row, head) = (top + log2f(total)) * ln_of_2;
}

}  // namespace pesc::gpu::detail
