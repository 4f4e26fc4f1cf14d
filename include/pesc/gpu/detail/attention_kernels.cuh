// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/gpu/detail/elementwise_kernels.cuh"
#include "pesc/gpu/detail/reduce_warp.cuh"
#include "pesc/nn/attention_types.hpp"

// An *item* is one query of one head: of the heads that share keys, item i of a span is head i % share of row i / share.
// Scores are in powers of two: exp(x) = exp2(x log2(e)).

namespace pesc::gpu::detail {

inline constexpr float log2_of_e = 1.44269504088896341f;
inline constexpr float ln_of_2 = 0.693147180559945309f;

/// \brief How a block works: a thread has `Lines` rows of the block, its lane every 16th of the `Streamed` rows that meet
/// them step by step, and every 16th group of four of the `Dim` columns.
template <int Dim, int Lines, int Streamed, int Warps>
struct attention_tile {
  static_assert(Dim % 64 == 0 && Lines % 4 == 0 && Streamed % 16 == 0);
  static constexpr int dim = Dim;  ///< head size, filled up with zeros
  static constexpr int lines = Lines;
  static constexpr int streamed = Streamed;
  static constexpr int threads = 32 * Warps;
  static constexpr int warp_rows = 2 * Lines;
  static constexpr int rows = warp_rows * Warps;
  static constexpr int share = Streamed / 16;
  static constexpr int columns = Dim / 16;
  /// Rows of 4 banks more than a multiple of 32, so that eight lanes reading 16 bytes of as many rows meet all banks.
  static constexpr int pitch = Dim + 4;
  /// Streamed rows whose weights a warp keeps at a time, and the distance between them.
  static constexpr int weight_rows = Streamed < 32 ? Streamed : 32;
  static constexpr int weight_pitch = warp_rows + 4;

  static constexpr int resident_floats = rows * Dim;
  static constexpr int streamed_floats = Streamed * pitch;
  static constexpr int weight_floats = weight_rows * weight_pitch;  ///< per warp
};

/// \brief Operands of attention as kernels take them.
struct attention_inputs {
  device_matrix<const float> q, k, v;
  device_vector<const attention_span> spans;
  int share;  ///< query heads per head of keys
  int head_dim;
  float scale;   ///< 1 / sqrt(head_dim)
  bool vectors;  ///< whether every row of a head can be read in 16-byte accesses
};

/// \brief One row for each item of a span and a head of keys.
template <class T>
struct item_rows {
  T* data;
  index_t stride;
  unsigned share;
  unsigned head_dim;

  __device__ item_rows(const device_matrix<T>& m, index_t first_row, index_t kv_head, int share_,
                       int head_dim_)
      : data{m.row(first_row) + kv_head * share_ * head_dim_},
        stride{m.stride},
        share{static_cast<unsigned>(share_)},
        head_dim{static_cast<unsigned>(head_dim_)} {}

  __device__ T* operator()(int item) const {
    const auto i = static_cast<unsigned>(item);
    return data + i / share * stride + i % share * head_dim;
  }
};

/// \brief One row for each key of a span, of one head.
template <class T>
struct key_rows {
  T* data;
  index_t stride;
  unsigned head_dim;

  __device__ key_rows(const device_matrix<T>& m, index_t first_row, index_t kv_head, int head_dim_)
      : data{m.row(first_row) + kv_head * head_dim_},
        stride{m.stride},
        head_dim{static_cast<unsigned>(head_dim_)} {}

  __device__ T* operator()(int key) const { return data + key * stride; }
};

/// \brief The span of the `tile`-th tile, where span s has tiles_of(s) of them, and its place in the span; by whole warps.
///
/// \return false where there are fewer tiles
template <class TilesOf>
__device__ bool find_tile(device_vector<const attention_span> spans, index_t tile, TilesOf tiles_of,
                          attention_span& span, index_t& place) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (index_t first = 0; first < spans.size; first += 32) {
    index_t end = first + lane < spans.size ? tiles_of(spans[first + lane]) : 0;
    const index_t own = end;
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
      const index_t before = __shfl_up_sync(whole_warp, end, distance);
      if (lane >= distance) end += before;
    }
    const unsigned beyond = __ballot_sync(whole_warp, tile < end);
    if (beyond != 0) {
      const int found = __ffs(static_cast<int>(beyond)) - 1;
      span = spans[first + found];
      place = tile - __shfl_sync(whole_warp, end - own, found);
      return true;
    }
    tile -= __shfl_sync(whole_warp, end, 31);
  }
  return false;
}

__device__ inline int items_of(const attention_inputs& in, const attention_span& span) {
  return static_cast<int>(span.query_end - span.query_begin) * in.share;
}

/// \brief The span of this block among tiles of items, from the last tile on: later ones see more keys and begin first.
template <class Tile>
__device__ bool find_item_tile(const attention_inputs& in, attention_span& span, index_t& place) {
  return find_tile(
      in.spans, gridDim.x - 1 - blockIdx.x,
      [&](const attention_span& s) { return ceil_div(items_of(in, s), Tile::rows); }, span, place);
}

/// \brief Starts a copy of `Bytes` to shared memory; zeros where `inside` is false.
template <int Bytes>
__device__ void copy_async(float* to, const float* from, bool inside) {
  const auto place = static_cast<unsigned>(__cvta_generic_to_shared(to));
  if constexpr (Bytes == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"(place), "l"(from), "r"(inside ? 16 : 0)
                 : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;"
                 :
                 : "r"(place), "l"(from), "r"(inside ? 4 : 0)
                 : "memory");
}

/// \brief Writes to shared memory in one access, which compilers take apart now and then.
__device__ inline void store_shared(float* to, const pack<float, 4>& values) {
  asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};"
               :
               : "r"(static_cast<unsigned>(__cvta_generic_to_shared(to))), "f"(values[0]), "f"(values[1]),
                 "f"(values[2]), "f"(values[3])
               : "memory");
}

/// \brief Waits for the copies that this thread started, then for the block.
__device__ inline void wait_for_copies() {
  asm volatile("cp.async.wait_all;" ::: "memory");
  __syncthreads();
}

template <class Tile, int Rows, int Pitch, int Width, class From>
__device__ void start_row_copies(const From& from, int first, int count, float* to) {
  constexpr int accesses = Tile::dim / Width;
#pragma unroll 1
  for (int i = threadIdx.x; i < Rows * accesses; i += Tile::threads) {
    const int row = i / accesses;
    const int col = i % accesses * Width;
    const bool inside = row < count && col < static_cast<int>(from.head_dim);
    copy_async<4 * Width>(to + row * Pitch + col, inside ? from(first + row) + col : from.data, inside);
  }
}

/// \brief Starts copies of `count` rows from item `first` on; rows and columns beyond become zeros.
template <class Tile, int Rows, int Pitch, class From>
__device__ void start_row_copies(const From& from, int first, int count, bool vectors, float* to) {
  if (vectors)
    start_row_copies<Tile, Rows, Pitch, 4>(from, first, count, to);
  else
    start_row_copies<Tile, Rows, Pitch, 1>(from, first, count, to);
}

/// \brief Starts copies of the rows that a block keeps.
template <class Tile, class From>
__device__ void start_resident_copies(const From& from, int first, int count, bool vectors, float* to) {
  start_row_copies<Tile, Tile::rows, Tile::dim>(from, first, count, vectors, to);
}

/// \brief Starts copies of the rows of one step.
template <class Tile, class From>
__device__ void start_streamed_copies(const From& from, int first, int count, bool vectors, float* to) {
  start_row_copies<Tile, Tile::streamed, Tile::pitch>(from, first, count, vectors, to);
}

/// \brief Where a thread stands in its tile.
template <class Tile>
struct span_tile {
  int warp = static_cast<int>(threadIdx.x) / 32;
  int lane = static_cast<int>(threadIdx.x) % 16;  ///< streamed rows lane + 16 c, columns 4 lane + 64 c
  int line =
      warp * Tile::warp_rows + static_cast<int>(threadIdx.x) % 32 / 16 * Tile::lines;  ///< first of its rows
};

/// \brief products[r][c] = <row r of this thread, streamed row lane + 16 c>.
template <class Tile>
__device__ void multiply_rows(const float* resident, const float* streamed, int head_dim,
                              float (&products)[Tile::lines][Tile::share]) {
  const span_tile<Tile> at;
  const float* mine = resident + at.line * Tile::dim;
  const float* theirs = streamed + at.lane * Tile::pitch;
#pragma unroll
  for (int r = 0; r < Tile::lines; ++r)
#pragma unroll
    for (int c = 0; c < Tile::share; ++c) products[r][c] = 0.0f;
  for (int k = 0; k < head_dim; k += 4) {
    pack<float, 4> y[Tile::share];
#pragma unroll
    for (int c = 0; c < Tile::share; ++c) y[c] = load_pack<4>(theirs + 16 * c * Tile::pitch + k);
#pragma unroll
    for (int r = 0; r < Tile::lines; ++r) {
      const auto x = load_pack<4>(mine + r * Tile::dim + k);
#pragma unroll
      for (int c = 0; c < Tile::share; ++c)
#pragma unroll
        for (int i = 0; i < 4; ++i) products[r][c] += x[i] * y[c][i];
    }
  }
}

/// \brief sums[r][.] += weights[r][c] * (columns of this thread in streamed row lane + 16 c), over all lanes.
///
/// \param scratch  of the warp; weights pass through it, because a row's are spread over lanes
template <class Tile>
__device__ void add_weighted_rows(const float (&weights)[Tile::lines][Tile::share], const float* streamed,
                                  float* scratch, float (&sums)[Tile::lines][Tile::columns]) {
  const span_tile<Tile> at;
  constexpr int chunk = Tile::weight_rows / 16;
  float* lines = scratch + at.line % Tile::warp_rows;
#pragma unroll
  for (int first = 0; first < Tile::share; first += chunk) {
    __syncwarp();
#pragma unroll
    for (int c = 0; c < chunk; ++c)
#pragma unroll
      for (int r = 0; r < Tile::lines; r += 4) {
        pack<float, 4> four;
#pragma unroll
        for (int i = 0; i < 4; ++i) four[i] = weights[r + i][first + c];
        store_shared(lines + (at.lane + 16 * c) * Tile::weight_pitch + r, four);
      }
    __syncwarp();
    const float* rows = streamed + 16 * first * Tile::pitch + 4 * at.lane;
#pragma unroll 2
    for (int n = 0; n < Tile::weight_rows; ++n) {
      float w[Tile::lines];
#pragma unroll
      for (int r = 0; r < Tile::lines; r += 4) {
        const auto four = load_pack<4>(lines + n * Tile::weight_pitch + r);
#pragma unroll
        for (int i = 0; i < 4; ++i) w[r + i] = four[i];
      }
#pragma unroll
      for (int c = 0; c < Tile::columns; c += 4) {
        const auto x = load_pack<4>(rows + n * Tile::pitch + 16 * c);
#pragma unroll
        for (int r = 0; r < Tile::lines; ++r)
#pragma unroll
          for (int i = 0; i < 4; ++i) sums[r][c + i] += w[r] * x[i];
      }
    }
  }
}

/// \brief Writes `factor` times the columns of this thread to a row.
template <class Tile>
__device__ void write_row(const float (&sums)[Tile::columns], float factor, int head_dim, bool vectors,
                          float* row) {
  const span_tile<Tile> at;
#pragma unroll
  for (int c = 0; c < Tile::columns; c += 4) {
    const int col = 4 * at.lane + 16 * c;
    pack<float, 4> four;
#pragma unroll
    for (int i = 0; i < 4; ++i) four[i] = sums[c + i] * factor;
    if (vectors) {
      if (col < head_dim) store_pack(row + col, four);
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        if (col + i < head_dim) row[col + i] = four[i];
    }
  }
}

/// \brief Sets scores of keys that an item does not see to -infinity.
///
/// \param item  of the first row of the thread
/// \param past  number of keys before those of the span's first row, less the first key of the step
template <class Tile>
__device__ void hide_later_keys(int item, int past, int share, float (&scores)[Tile::lines][Tile::share]) {
  const span_tile<Tile> at;
#pragma unroll
  for (int r = 0; r < Tile::lines; ++r) {
    const int last = past + (item + r) / share;
#pragma unroll
    for (int c = 0; c < Tile::share; ++c)
      if (at.lane + 16 * c > last) scores[r][c] = -INFINITY;
  }
}

/// \brief Scores of one step become weights relative to the largest score so far; `sums` and `totals` fade to match.
template <class Tile>
__device__ void soften(float (&scores)[Tile::lines][Tile::share], float scale, float (&tops)[Tile::lines],
                       float (&totals)[Tile::lines], float (&sums)[Tile::lines][Tile::columns]) {
#pragma unroll
  for (int r = 0; r < Tile::lines; ++r) {
    float top = scores[r][0];
#pragma unroll
    for (int c = 1; c < Tile::share; ++c) top = fmaxf(top, scores[r][c]);
    // Every item sees the first key, so that the top is finite from the first step on.
    top = fmaxf(tops[r], warp_reduce<16>(top, largest_of{}) * scale);
    const float fade = exp2f(tops[r] - top);
    tops[r] = top;
    totals[r] *= fade;
#pragma unroll
    for (int c = 0; c < Tile::share; ++c) {
      scores[r][c] = exp2f(scores[r][c] * scale - top);
      totals[r] += scores[r][c];
    }
#pragma unroll
    for (int c = 0; c < Tile::columns; ++c) sums[r][c] *= fade;
  }
}

/// A block has `Tile::rows` items of one span and one head of keys. Keys and values pass through the same shared memory:
/// values are on their way while scores become weights.
template <class Tile>
__global__ void __launch_bounds__(Tile::threads, 3)
    attention_kernel(attention_inputs in, device_matrix<float> out, device_matrix<float> lse) {
  extern __shared__ float4 attention_memory[];
  float* queries = reinterpret_cast<float*>(attention_memory);
  float* streamed = queries + Tile::resident_floats;
  const span_tile<Tile> at;
  float* weights = streamed + Tile::streamed_floats + at.warp * Tile::weight_floats;

  attention_span span;
  index_t place;
  if (!find_item_tile<Tile>(in, span, place)) return;
  const int kv_head = blockIdx.y;
  const item_rows<const float> q(in.q, span.query_begin, kv_head, in.share, in.head_dim);
  const key_rows<const float> k(in.k, span.key_begin, kv_head, in.head_dim);
  const key_rows<const float> v(in.v, span.key_begin, kv_head, in.head_dim);
  const int past = static_cast<int>(span.past);
  const int first = static_cast<int>(place) * Tile::rows;
  const int count = min(Tile::rows, items_of(in, span) - first);
  const int keys = past + (first + count - 1) / in.share + 1;

  float tops[Tile::lines], totals[Tile::lines] = {}, sums[Tile::lines][Tile::columns] = {};
#pragma unroll
  for (int r = 0; r < Tile::lines; ++r) tops[r] = -INFINITY;
  start_resident_copies<Tile>(q, first, count, in.vectors, queries);
  for (int begin = 0; begin < keys; begin += Tile::streamed) {
    start_streamed_copies<Tile>(k, begin, keys - begin, in.vectors, streamed);
    wait_for_copies();
    float scores[Tile::lines][Tile::share];
    multiply_rows<Tile>(queries, streamed, in.head_dim, scores);
    __syncthreads();
    start_streamed_copies<Tile>(v, begin, keys - begin, in.vectors, streamed);
    if (begin + Tile::streamed > past + first / in.share + 1)
      hide_later_keys<Tile>(first + at.line, past - begin, in.share, scores);
    soften<Tile>(scores, in.scale * log2_of_e, tops, totals, sums);
    wait_for_copies();
    add_weighted_rows<Tile>(scores, streamed, weights, sums);
    __syncthreads();
  }

  const item_rows<float> y(out, span.query_begin, kv_head, in.share, in.head_dim);
  const item_rows<float> statistics(lse, span.query_begin, kv_head, in.share, 1);
#pragma unroll
  for (int r = 0; r < Tile::lines; ++r) {
    const float total = warp_reduce<16>(totals[r], sum_of{});
    if (at.line + r >= count) continue;
    const int item = first + at.line + r;
    write_row<Tile>(sums[r], 1.0f / total, in.head_dim, in.vectors, y(item));
    if (at.lane == 0) *statistics(item) = (tops[r] + log2f(total)) * ln_of_2;
  }
}

}  // namespace pesc::gpu::detail
