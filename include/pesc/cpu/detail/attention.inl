// SPDX-License-Identifier: Apache-2.0
// Included by elementwise.inl.
//
// A tile is as many items (queries of one head) as two registers have lanes. Scores, probabilities and sums
// of a tile lie lane by lane, so that softmax needs no sums across lanes and small heads fill the registers;
// keys and values are broadcast from where they are.

/// \brief How a small product meets what its place holds.
enum class product_mode { overwrite, add, fade_and_add };

/// \brief sums[n] += b[n] * a, for the broadcast b[n] and a row of registers.
template <std::size_t Vectors>
[[gnu::always_inline]] inline void add_product(vec (&sums)[Vectors], vec b, const vec (&a)[Vectors]) {
  sums[0] = simd::fmadd(b, a[0], sums[0]);
  if constexpr (Vectors > 1) sums[1] = simd::fmadd(b, a[1], sums[1]);
}

template <std::size_t Vectors>
[[gnu::always_inline]] inline void clear(vec (&sums)[Vectors]) {
  sums[0] = simd::zero();
  if constexpr (Vectors > 1) sums[1] = simd::zero();
}

template <std::size_t Rows, std::size_t Vectors, std::size_t... R>
[[gnu::always_inline]] inline void add_products(vec (&sums)[Rows][Vectors], const float* b, index_t next,
                                                const vec (&a)[Vectors], std::index_sequence<R...>) {
  (add_product(sums[R], simd::broadcast(b + static_cast<index_t>(R) * next), a), ...);
}

/// \brief Operands of y[n] = sum over i < k of b[i * step + n * next] * a[i], rows of `cols` elements.
struct small_product {
  const float* a;
  index_t a_stride, k;
  const float* b;
  index_t step, next;
  float* y;
  index_t y_stride, count, cols;
  const float* fade;  ///< per column, what y is multiplied by first
};

/// \brief y becomes, gets or fades before it gets `sum`; `left` columns are there, `Full` where that is whole
/// registers.
template <product_mode Mode, bool Full>
[[gnu::always_inline]] inline void finish_product(float* y, vec sum, const float* fade, index_t left) {
  if constexpr (Mode == product_mode::add) sum = simd::add(sum, Full ? simd::load(y) : simd::load_n(y, left));
  if constexpr (Mode == product_mode::fade_and_add) sum = simd::fmadd(simd::load(y), simd::load(fade), sum);
  if constexpr (Full)
    simd::store(y, sum);
  else
    simd::store_n(y, sum, left);
}

template <product_mode Mode, bool Full, std::size_t Vectors>
[[gnu::always_inline]] inline void finish_products(float* y, const vec (&sums)[Vectors], const float* fade,
                                                   index_t left) {
  finish_product<Mode, Full>(y, sums[0], fade, std::min(left, simd::width));
  if constexpr (Vectors > 1)
    finish_product<Mode, Full>(y + simd::width, sums[1],
                               fade + (Mode == product_mode::fade_and_add ? simd::width : 0),
                               left - simd::width);
}

/// Loops over rows are written as packs: compilers leave arrays of registers in memory where they do not
/// unroll.
template <product_mode Mode, bool Full, std::size_t Vectors, std::size_t... R>
[[gnu::always_inline]] inline void multiply_small_block(const small_product& p, index_t row, index_t col,
                                                        std::index_sequence<R...> rows) {
  vec sums[sizeof...(R)][Vectors];
  (clear(sums[R]), ...);
  const float* a = p.a + col;
  const float* b = p.b + row * p.next;
  for (index_t i = 0; i < p.k; ++i, a += p.a_stride, b += p.step) {
    vec x[Vectors];
    x[0] = simd::load(a);
    if constexpr (Vectors > 1) x[1] = simd::load(a + simd::width);
    add_products(sums, b, p.next, x, rows);
  }
  float* y = p.y + row * p.y_stride + col;
  const float* fade = p.fade + (Mode == product_mode::fade_and_add ? col : 0);
  (finish_products<Mode, Full>(y + static_cast<index_t>(R) * p.y_stride, sums[R], fade, p.cols - col), ...);
}

template <product_mode Mode, bool Full, std::size_t Vectors>
inline void multiply_small_columns(const small_product& p, index_t col) {
  index_t row = 0;
  for (; p.count - row >= 4; row += 4)
    multiply_small_block<Mode, Full, Vectors>(p, row, col, std::make_index_sequence<4>());
  for (; row < p.count; ++row)
    multiply_small_block<Mode, Full, Vectors>(p, row, col, std::make_index_sequence<1>());
}

template <product_mode Mode, bool Full>
inline void multiply_small_rows(const small_product& p) {
  index_t col = 0;
  for (; p.cols - col > simd::width; col += 2 * simd::width) multiply_small_columns<Mode, Full, 2>(p, col);
  if (col < p.cols) multiply_small_columns<Mode, Full, 1>(p, col);
}

/// \brief `a` must be readable up to a multiple of the register width beyond `cols`.
template <product_mode Mode>
inline void multiply_small(const small_product& p) {
  if (p.cols % simd::width == 0)
    multiply_small_rows<Mode, true>(p);
  else
    multiply_small_rows<Mode, false>(p);
}

struct attention_kernels {
  static constexpr index_t attention_lanes = 2 * simd::width;

  static index_t attention_scratch(index_t head_dim) {
    return (2 * head_dim + attention_block + 4) * attention_lanes;
  }

  /// Head vectors of the items of a tile, one column each, times `scale`; zeros beyond.
  template <class Offset>
  static void gather_columns(const float* rows, index_t first, index_t items, index_t head_dim, float scale,
                             const Offset& offset, float* columns) {
    for (index_t l = 0; l < attention_lanes; ++l) {
      const float* row = l < items ? rows + offset(first + l) : nullptr;
      for (index_t c = 0; c < head_dim; ++c)
        columns[c * attention_lanes + l] = row == nullptr ? 0.0f : row[c] * scale;
    }
  }

  /// Number of keys that each lane sees from key `begin` on, as floats.
  static void write_limits(const attention_task& task, index_t first, index_t items, index_t begin,
                           float* limits) {
    for (index_t l = 0; l < attention_lanes; ++l)
      limits[l] = static_cast<float>(task.keys(first + std::min(l, items - 1)) - begin);
  }

  /// Scores become exponentials relative to the largest so far; `fade` is what earlier sums must be
  /// multiplied by.
  static void soften(float* scores, index_t keys, bool masked, const float* limits, float* tops,
                     float* totals, float* fades) {
    for (index_t at = 0; at < attention_lanes; at += simd::width) {
      const vec limit = simd::load(limits + at);
      const vec hidden = simd::set(-HUGE_VALF);
      const vec before = simd::load(tops + at);
      vec top = before;
      for (index_t j = 0; j < keys; ++j) {
        float* place = scores + j * attention_lanes + at;
        vec s = simd::load(place);
        if (masked) {
          s = simd::select(simd::less(simd::set(static_cast<float>(j)), limit), s, hidden);
          simd::store(place, s);
        }
        top = simd::max(top, s);
      }
      const vec fade = exp(simd::sub(before, top));
      vec total = simd::mul(simd::load(totals + at), fade);
      for (index_t j = 0; j < keys; ++j) {
        float* place = scores + j * attention_lanes + at;
        const vec e = exp(simd::sub(simd::load(place), top));
        simd::store(place, e);
        total = simd::add(total, e);
      }
      simd::store(tops + at, top);
      simd::store(totals + at, total);
      simd::store(fades + at, fade);
    }
  }

  /// Output and log-sum-exp of items `first` to `first + items` - 1, at most `attention_lanes`.
  static void attend_tile(const attention_task& task, index_t first, index_t items, float* scratch) {
    constexpr index_t lanes = attention_lanes;
    const index_t size = task.head_dim;
    float* queries = scratch;
    float* sums = queries + size * lanes;
    float* scores = sums + size * lanes;
    float* tops = scores + attention_block * lanes;
    float* totals = tops + lanes;
    float* fades = totals + lanes;
    float* limits = fades + lanes;
    gather_columns(
        task.q, first, items, size, task.scale, [&](index_t i) { return task.query(i); }, queries);
    std::fill_n(sums, size * lanes, 0.0f);
    std::fill_n(tops, lanes, -HUGE_VALF);
    std::fill_n(totals, lanes, 0.0f);
    const index_t keys = task.keys(first + items - 1);
    for (index_t begin = 0; begin < keys; begin += attention_block) {
      const index_t n = std::min(attention_block, keys - begin);
      const float* k = task.k + begin * task.k_stride;
      const float* v = task.v + begin * task.v_stride;
      write_limits(task, first, items, begin, limits);
      multiply_small<product_mode::overwrite>(
          {queries, lanes, size, k, 1, task.k_stride, scores, lanes, n, lanes, nullptr});
      soften(scores, n, begin + n > task.keys(first), limits, tops, totals, fades);
      multiply_small<product_mode::fade_and_add>(
          {scores, lanes, n, v, task.v_stride, 1, sums, lanes, size, lanes, fades});
    }
    for (index_t l = 0; l < items; ++l) {
      const float inverse = 1.0f / totals[l];
      float* out = task.out + task.output(first + l);
      for (index_t c = 0; c < size; ++c) out[c] = sums[c * lanes + l] * inverse;
      task.lse[task.statistic(first + l)] = tops[l] + std::log(totals[l]);
    }
  }

  /// out = out * fade + sum over j of weights[j] * v[j].
  static void add_weighted_rows(const float* weights, index_t n, const float* v, index_t stride, index_t cols,
                                float fade, float* out) {
    for (index_t c = 0; c < cols; c += simd::width) {
      const index_t left = std::min(cols - c, simd::width);
      vec even = simd::mul(simd::set(fade), simd::load_n(out + c, left));
      vec odd = simd::zero();
      index_t j = 0;
      for (; j + 2 <= n; j += 2) {
        const float* row = v + j * stride + c;
        even = simd::fmadd(simd::broadcast(weights + j), simd::load_n(row, left), even);
        odd = simd::fmadd(simd::broadcast(weights + j + 1), simd::load_n(row + stride, left), odd);
      }
      if (j < n)
        even = simd::fmadd(simd::broadcast(weights + j), simd::load_n(v + j * stride + c, left), even);
      simd::store_n(out + c, simd::add(even, odd), left);
    }
  }

  /// One item alone, as decoding has it: lanes run along the head.
  static void attend_item(const attention_task& task, index_t item, float* scratch) {
    const index_t size = task.head_dim;
    const index_t keys = task.keys(item);
    const float* query = task.q + task.query(item);
    float* out = task.out + task.output(item);
    std::fill_n(out, size, 0.0f);
    float top = -HUGE_VALF;
    float total = 0.0f;
    for (index_t begin = 0; begin < keys; begin += attention_block) {
      const index_t n = std::min(attention_block, keys - begin);
      float largest = top;
      for (index_t j = 0; j < n; ++j) {
        scratch[j] = task.scale * reduce_kernels::dot(query, task.k + (begin + j) * task.k_stride, size);
        largest = std::max(largest, scratch[j]);
      }
      const float fade = std::exp(top - largest);
      top = largest;
      total = total * fade + reduce_kernels::exp_row<true>(scratch, top, scratch, n);
      add_weighted_rows(scratch, n, task.v + begin * task.v_stride, task.v_stride, size, fade, out);
    }
    row_kernels::scaled(out, 1.0f / total, out, size);
    task.lse[task.statistic(item)] = top + std::log(total);
  }

  /// Items in whichever of the two ways suits their number.
  static void attend(const attention_task& task, index_t first, index_t items, float* scratch) {
    if (items > simd::width / 2) {
      attend_tile(task, first, items, scratch);
    } else {
      for (index_t i = 0; i < items; ++i) attend_item(task, first + i, scratch);
    }
  }

#include "pesc/cpu/detail/attention_backward.inl"
};
