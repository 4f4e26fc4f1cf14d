// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/gpu/detail/attention_kernels.cuh"

// Probabilities are computed again from the log-sum-exp of the forward operation. With p = exp(score - lse),
// dp = <dout, v> and delta = <dout, out> the gradient of a score is p (dp - delta). One kernel sums it over keys, another
// over items, each in a fixed order.

namespace pesc::gpu::detail {

/// \brief What the gradient reads besides the operands of attention.
struct attention_gradient_inputs {
  device_matrix<const float> out, lse, dout;
  device_matrix<float>
      delta;  ///< [tokens, heads], written by the kernel of the queries, read by that of the keys
};

/// \brief Memory of a block: rows that it keeps and rows of a step, two of each, and weights of its warps.
template <class Tile>
struct attention_backward_memory {
  static constexpr int floats =
      2 * Tile::resident_floats + 2 * Tile::streamed_floats + Tile::threads / 32 * Tile::weight_floats;

  float* resident[2];
  float* streamed[2];
  float* weights;  ///< of this warp

  __device__ explicit attention_backward_memory(float* memory)
      : resident{memory, memory + Tile::resident_floats},
        streamed{memory + 2 * Tile::resident_floats,
                 memory + 2 * Tile::resident_floats + Tile::streamed_floats},
        weights{memory + 2 * Tile::resident_floats + 2 * Tile::streamed_floats +
                static_cast<int>(threadIdx.x) / 32 * Tile::weight_floats} {}
};

/// dq of `Tile::rows` items of one span and one head of keys; a step is a run of keys with their values.
template <class Tile>
__global__ void __launch_bounds__(Tile::threads, 1)
    attention_query_gradient_kernel(attention_inputs in, attention_gradient_inputs gradient,
                                    device_matrix<float> dq) {
  extern __shared__ float4 attention_memory[];
  const attention_backward_memory<Tile> memory(reinterpret_cast<float*>(attention_memory));
  const span_tile<Tile> at;
  attention_span span;
  index_t place;
  if (!find_item_tile<Tile>(in, span, place)) return;
  const int kv_head = blockIdx.y;
  const item_rows<const float> q(in.q, span.query_begin, kv_head, in.share, in.head_dim);
  const item_rows<const float> dout(gradient.dout, span.query_begin, kv_head, in.share, in.head_dim);
  const item_rows<const float> out(gradient.out, span.query_begin, kv_head, in.share, in.head_dim);
  const item_rows<const float> lse(gradient.lse, span.query_begin, kv_head, in.share, 1);
  const item_rows<float> deltas(gradient.delta, span.query_begin, kv_head, in.share, 1);
  const key_rows<const float> k(in.k, span.key_begin, kv_head, in.head_dim);
  const key_rows<const float> v(in.v, span.key_begin, kv_head, in.head_dim);
  const int past = static_cast<int>(span.past);
  const int first = static_cast<int>(place) * Tile::rows;
  const int count = min(Tile::rows, items_of(in, span) - first);
  const int keys = past + (first + count - 1) / in.share + 1;

  start_resident_copies<Tile>(q, first, count, in.vectors, memory.resident[0]);
  start_resident_copies<Tile>(dout, first, count, in.vectors, memory.resident[1]);
  float tops[Tile::lines], delta[Tile::lines], sums[Tile::lines][Tile::columns] = {};
#pragma unroll
  for (int r = 0; r < Tile::lines; ++r) {
    const int line = at.line + r;
    const bool inside = line < count;
    float product = 0.0f;
    for (int col = at.lane; col < (inside ? in.head_dim : 0); col += 16)
      product += dout(first + line)[col] * out(first + line)[col];
    delta[r] = warp_reduce<16>(product, sum_of{});
    // Rows without an item get probabilities of zero.
    tops[r] = inside ? *lse(first + line) * log2_of_e : INFINITY;
    if (inside && at.lane == 0) *deltas(first + line) = delta[r];
  }

  for (int begin = 0; begin < keys; begin += Tile::streamed) {
    __syncthreads();
    start_streamed_copies<Tile>(k, begin, keys - begin, in.vectors, memory.streamed[0]);
    start_streamed_copies<Tile>(v, begin, keys - begin, in.vectors, memory.streamed[1]);
    wait_for_copies();
    float scores[Tile::lines][Tile::share], slopes[Tile::lines][Tile::share];
    multiply_rows<Tile>(memory.resident[0], memory.streamed[0], in.head_dim, scores);
    if (begin + Tile::streamed > past + first / in.share + 1)
      hide_later_keys<Tile>(first + at.line, past - begin, in.share, scores);
    multiply_rows<Tile>(memory.resident[1], memory.streamed[1], in.head_dim, slopes);
#pragma unroll
    for (int r = 0; r < Tile::lines; ++r)
#pragma unroll
      for (int c = 0; c < Tile::share; ++c)
        slopes[r][c] = exp2f(scores[r][c] * (in.scale * log2_of_e) - tops[r]) * (slopes[r][c] - delta[r]);
    add_weighted_rows<Tile>(slopes, memory.streamed[0], memory.weights, sums);
  }
  const item_rows<float> y(dq, span.query_begin, kv_head, in.share, in.head_dim);
#pragma unroll
  for (int r = 0; r < Tile::lines; ++r)
    if (at.line + r < count)
      write_row<Tile>(sums[r], in.scale, in.head_dim, in.vectors, y(first + at.line + r));
}

/// dk and dv of `Tile::rows` keys of one span; a step is a run of items with their gradients.
template <class Tile>
__global__ void __launch_bounds__(Tile::threads, 1)
    attention_key_gradient_kernel(attention_inputs in, attention_gradient_inputs gradient,
                                  device_matrix<float> dk, device_matrix<float> dv) {
  extern __shared__ float4 attention_memory[];
  const attention_backward_memory<Tile> memory(reinterpret_cast<float*>(attention_memory));
  const span_tile<Tile> at;
  const auto keys_of = [](const attention_span& s) { return s.past + s.query_end - s.query_begin; };
  attention_span span;
  index_t place;
  // The first keys are seen by most items, and their blocks begin first.
  if (!find_tile(
          in.spans, blockIdx.x, [&](const attention_span& s) { return ceil_div(keys_of(s), Tile::rows); },
          span, place))
    return;
  const int kv_head = blockIdx.y;
  const item_rows<const float> q(in.q, span.query_begin, kv_head, in.share, in.head_dim);
  const item_rows<const float> dout(gradient.dout, span.query_begin, kv_head, in.share, in.head_dim);
  const item_rows<const float> lse(gradient.lse, span.query_begin, kv_head, in.share, 1);
  const item_rows<float> deltas(gradient.delta, span.query_begin, kv_head, in.share, 1);
  const int past = static_cast<int>(span.past);
  const int first = static_cast<int>(place) * Tile::rows;
  const int count = min(Tile::rows, static_cast<int>(keys_of(span)) - first);
  const int items = items_of(in, span);
  const int last_past =
      past - first - at.line;  // row r of the thread is seen by queries r - last_past and later

  start_resident_copies<Tile>(key_rows<const float>(in.k, span.key_begin, kv_head, in.head_dim), first, count,
                              in.vectors, memory.resident[0]);
  start_resident_copies<Tile>(key_rows<const float>(in.v, span.key_begin, kv_head, in.head_dim), first, count,
                              in.vectors, memory.resident[1]);
  float key_sums[Tile::lines][Tile::columns] = {}, value_sums[Tile::lines][Tile::columns] = {};
  for (int begin = max(0, first - past) * in.share; begin < items; begin += Tile::streamed) {
    __syncthreads();
    start_streamed_copies<Tile>(q, begin, items - begin, in.vectors, memory.streamed[0]);
    start_streamed_copies<Tile>(dout, begin, items - begin, in.vectors, memory.streamed[1]);
    float tops[Tile::share], delta[Tile::share];
    int seen[Tile::share];  // number of rows of the thread that an item sees
#pragma unroll
    for (int c = 0; c < Tile::share; ++c) {
      const int item = begin + at.lane + 16 * c;
      const bool inside = item < items;
      tops[c] = inside ? *lse(item) * log2_of_e : INFINITY;
      delta[c] = inside ? *deltas(item) : 0.0f;
      seen[c] = inside ? last_past + item / in.share + 1 : 0;
    }
    wait_for_copies();
    float scores[Tile::lines][Tile::share], slopes[Tile::lines][Tile::share];
    multiply_rows<Tile>(memory.resident[0], memory.streamed[0], in.head_dim, scores);
#pragma unroll
    for (int r = 0; r < Tile::lines; ++r)
#pragma unroll
      for (int c = 0; c < Tile::share; ++c)
        scores[r][c] = r < seen[c] ? exp2f(scores[r][c] * (in.scale * log2_of_e) - tops[c]) : 0.0f;
    add_weighted_rows<Tile>(scores, memory.streamed[1], memory.weights, value_sums);
    multiply_rows<Tile>(memory.resident[1], memory.streamed[1], in.head_dim, slopes);
#pragma unroll
    for (int r = 0; r < Tile::lines; ++r)
#pragma unroll
      for (int c = 0; c < Tile::share; ++c) slopes[r][c] = scores[r][c] * (slopes[r][c] - delta[c]);
    add_weighted_rows<Tile>(slopes, memory.streamed[0], memory.weights, key_sums);
  }
  const key_rows<float> key_gradients(dk, span.key_begin, kv_head, in.head_dim);
  const key_rows<float> value_gradients(dv, span.key_begin, kv_head, in.head_dim);
#pragma unroll
  for (int r = 0; r < Tile::lines; ++r) {
    const int key = first + at.line + r;
    if (at.line + r >= count) continue;
    write_row<Tile>(key_sums[r], in.scale, in.head_dim, in.vectors, key_gradients(key));
    write_row<Tile>(value_sums[r], 1.0f, in.head_dim, in.vectors, value_gradients(key));
  }
}

}  // namespace pesc::gpu::detail
