// SPDX-License-Identifier: Apache-2.0
// Included once per instruction set, inside namespace `pesc::cpu::detail::<isa>` and its target region, after
// `vec` (the register type), `simd` (operations on it) and `block_rows` are defined there.
//
// Dense products. The left operand is packed as blocks of at most `block_rows` rows, [k][rows of the block];
// the right one as slivers of `sliver_cols` columns, [k][sliver_cols]. The microkernel holds one block times
// one sliver in registers: rows are broadcast, columns are lanes.

inline constexpr index_t sliver_cols = 2 * simd::width;

/// \brief Products of floats; another element type brings its own `broadcast`, `load` and `multiply_add`.
struct float_product {
  using element = float;
  [[gnu::always_inline]] static inline vec broadcast(const float* p) { return simd::broadcast(p); }
  [[gnu::always_inline]] static inline vec load(const float* p) { return simd::load(p); }
  [[gnu::always_inline]] static inline vec multiply_add(vec a, vec b, vec c) { return simd::fmadd(a, b, c); }
};

template <class Product, std::size_t Vectors>
[[gnu::always_inline]] inline void add_row(vec (&sum)[Vectors], vec a, const vec (&b)[Vectors]) {
  sum[0] = Product::multiply_add(a, b[0], sum[0]);
  if constexpr (Vectors > 1) sum[1] = Product::multiply_add(a, b[1], sum[1]);
}

template <class Product, std::size_t Rows, std::size_t Vectors, std::size_t... R>
[[gnu::always_inline]] inline void add_column(vec (&sums)[Rows][Vectors], const typename Product::element* a,
                                              const vec (&b)[Vectors], std::index_sequence<R...>) {
  (add_row<Product, Vectors>(sums[R], Product::broadcast(a + R), b), ...);
}

/// \brief y = alpha * sum (+ y), the first `cols` of one vector of columns.
[[gnu::always_inline]] inline void finish_vector(vec sum, float* y, index_t cols, vec alpha,
                                                 bool accumulate) {
  if (cols >= simd::width)
    simd::store(y, accumulate ? simd::fmadd(alpha, sum, simd::load(y)) : simd::mul(alpha, sum));
  else if (cols > 0)
    simd::store_n(y, accumulate ? simd::fmadd(alpha, sum, simd::load_n(y, cols)) : simd::mul(alpha, sum),
                  cols);
}

// Constant indices only: an array of sums that a loop walks through stays in memory.
template <std::size_t Vectors>
[[gnu::always_inline]] inline void finish_row(const vec (&sum)[Vectors], float* y, index_t cols, vec alpha,
                                              bool accumulate) {
  finish_vector(sum[0], y, cols, alpha, accumulate);
  if constexpr (Vectors > 1) finish_vector(sum[1], y + simd::width, cols - simd::width, alpha, accumulate);
}

template <std::size_t Rows, std::size_t Vectors, std::size_t... R>
[[gnu::always_inline]] inline void finish_rows(const vec (&sums)[Rows][Vectors], float* y, index_t stride,
                                               index_t cols, vec alpha, bool accumulate,
                                               std::index_sequence<R...>) {
  (finish_row<Vectors>(sums[R], y + static_cast<index_t>(R) * stride, cols, alpha, accumulate), ...);
}

template <std::size_t Rows, std::size_t Vectors, std::size_t... R>
[[gnu::always_inline]] inline void clear_rows(vec (&sums)[Rows][Vectors], std::index_sequence<R...>) {
  ((sums[R][0] = simd::zero(), sums[R][Vectors - 1] = simd::zero()), ...);
}

/// \brief One block times one sliver: y[Rows][cols] = alpha a b (+ y) over `steps` steps of k.
template <class Product, std::size_t Rows, std::size_t Vectors>
[[gnu::noinline]] void multiply_block(const typename Product::element* a, const typename Product::element* b,
                                      index_t b_stride, index_t steps, float* y, index_t y_stride,
                                      index_t cols, float alpha, bool accumulate) {
  constexpr auto rows = std::make_index_sequence<Rows>{};
  vec sums[Rows][Vectors];
  clear_rows(sums, rows);
  for (index_t step = 0; step < steps; ++step) {
    vec right[Vectors];
    right[0] = Product::load(b);
    if constexpr (Vectors > 1) right[1] = Product::load(b + simd::width);
    add_column<Product>(sums, a, right, rows);
    a += Rows;
    b += b_stride;
  }
  finish_rows(sums, y, y_stride, cols, simd::set(alpha), accumulate, rows);
}

template <class Product>
using block_function = void (*)(const typename Product::element*, const typename Product::element*, index_t,
                                index_t, float*, index_t, index_t, float, bool);

template <class Product, std::size_t Vectors, std::size_t... R>
inline block_function<Product> find_block(index_t rows, std::index_sequence<R...>) {
  static constexpr block_function<Product> table[] = {&multiply_block<Product, R + 1, Vectors>...};
  return table[rows - 1];
}

/// \brief A packed left operand: block b begins `steps * blocks.begin(b)` elements after `data`.
template <class Product>
struct packed_rows {
  const typename Product::element* data = nullptr;
  equal_blocks blocks{};
  index_t steps = 0;  ///< of k in the whole packed operand

  const typename Product::element* block(index_t b, index_t step) const {
    return data + blocks.begin(b) * steps + step * blocks.size(b);
  }
};

/// \brief A packed right operand of `cols` columns: sliver s begins `s * sliver_stride` after `data`, rows of
/// it lie `row_stride` apart.
template <class Product>
struct packed_cols {
  const typename Product::element* data = nullptr;
  index_t sliver_stride = 0;
  index_t row_stride = sliver_cols;
  index_t cols = 0;
};

/// \brief y[rows, cols] = alpha a b (+ y) over `steps` steps from `first_step` of `a`; `b` begins at that
/// step.
template <class Product>
inline void multiply_packed(const packed_rows<Product>& a, index_t first_step, index_t steps,
                            const packed_cols<Product>& b, float* y, index_t y_stride, float alpha,
                            bool accumulate) {
  constexpr auto sizes = std::make_index_sequence<static_cast<std::size_t>(block_rows)>{};
  for (index_t col = 0; col < b.cols; col += sliver_cols) {
    const index_t cols = std::min<index_t>(sliver_cols, b.cols - col);
    const auto* sliver = b.data + col / sliver_cols * b.sliver_stride;
    for (index_t i = 0; i < a.blocks.count(); ++i) {
      const index_t rows = a.blocks.size(i);
      const auto multiply =
          cols > simd::width ? find_block<Product, 2>(rows, sizes) : find_block<Product, 1>(rows, sizes);
      multiply(a.block(i, first_step), sliver, b.row_stride, steps, y + a.blocks.begin(i) * y_stride + col,
               y_stride, cols, alpha, accumulate);
    }
  }
}

/// \brief y (+)= sums, the first `n` of any number of columns.
inline void copy_sums(const float* sums, float* y, index_t n, bool accumulate) {
  for (index_t j = 0; j < n; j += simd::width)
    finish_vector(j + simd::width <= n ? simd::load(sums + j) : simd::load_n(sums + j, n - j), y + j, n - j,
                  simd::set(1.0f), accumulate);
}

/// \brief out[k][r] = x[r][k] for r below `rows`, which is at most `width`; zeros for k from `k_count` to
/// `k_padded`.
///
/// Rows of `out` are `stride` long. Where that is less than a vector, each store spills into the next row,
/// which is written after it.
inline void pack_transposed(const float* x, index_t x_stride, index_t rows, index_t k_count, index_t k_padded,
                            float* out, index_t stride, bool round_bf16) {
  for (index_t k = 0; k < k_padded; k += simd::width) {
    vec block[simd::width];
    for (index_t r = 0; r < simd::width; ++r) {
      if (r >= rows || k >= k_count)
        block[r] = simd::zero();
      else if (k + simd::width <= k_count)
        block[r] = simd::load(x + r * x_stride + k);
      else
        block[r] = simd::load_n(x + r * x_stride + k, k_count - k);
    }
    if (round_bf16)
      for (index_t r = 0; r < rows; ++r) block[r] = simd::round_to_bf16(block[r]);
    simd::transpose(block);
    for (index_t i = 0; i < simd::width && k + i < k_padded; ++i) {
      float* place = out + (k + i) * stride;
      if (stride >= simd::width || (k + i) * stride + simd::width <= k_padded * stride)
        simd::store(place, block[i]);
      else
        simd::store_n(place, block[i], stride);
    }
  }
}

/// \brief out[k][j] = x[k][j] for j below `cols`, zeros up to `stride`, a multiple of the vector.
inline void pack_straight(const float* x, index_t x_stride, index_t cols, index_t k_count, float* out,
                          index_t stride) {
  for (index_t k = 0; k < k_count; ++k)
    for (index_t j = 0; j < stride; j += simd::width)
      simd::store(out + k * stride + j, j + simd::width <= cols ? simd::load(x + k * x_stride + j)
                                        : j < cols              ? simd::load_n(x + k * x_stride + j, cols - j)
                                                                : simd::zero());
}

/// \brief out[k][r] = x[k][r] for r below `rows`, dense: a block of a left operand that is stored transposed.
inline void pack_left_straight(const float* x, index_t x_stride, index_t rows, index_t k_count, float* out) {
  for (index_t k = 0; k < k_count; ++k) {
    const vec column = simd::load_n(x + k * x_stride, rows);
    if (k * rows + simd::width <= k_count * rows)
      simd::store(out + k * rows, column);  // spills into columns that are written after it
    else
      simd::store_n(out + k * rows, column, rows);
  }
}

/// \brief alpha a . b[0..3] (+ y): four rows of a transposed right operand, lanes along k.
inline void dot_rows(const float* a, const float* b, index_t b_stride, index_t k, float* y, index_t count,
                     float alpha, bool accumulate) {
  vec s0 = simd::zero(), s1 = simd::zero(), s2 = simd::zero(), s3 = simd::zero();
  // Rows past the last one repeat it; their sums are not stored.
  const float* b1 = b + std::min<index_t>(1, count - 1) * b_stride;
  const float* b2 = b + std::min<index_t>(2, count - 1) * b_stride;
  const float* b3 = b + std::min<index_t>(3, count - 1) * b_stride;
  index_t i = 0;
  for (; i + simd::width <= k; i += simd::width) {
    const vec x = simd::load(a + i);
    s0 = simd::fmadd(x, simd::load(b + i), s0);
    s1 = simd::fmadd(x, simd::load(b1 + i), s1);
    s2 = simd::fmadd(x, simd::load(b2 + i), s2);
    s3 = simd::fmadd(x, simd::load(b3 + i), s3);
  }
  if (i < k) {
    const vec x = simd::load_n(a + i, k - i);
    s0 = simd::fmadd(x, simd::load_n(b + i, k - i), s0);
    s1 = simd::fmadd(x, simd::load_n(b1 + i, k - i), s1);
    s2 = simd::fmadd(x, simd::load_n(b2 + i, k - i), s2);
    s3 = simd::fmadd(x, simd::load_n(b3 + i, k - i), s3);
  }
  const float sums[4] = {simd::reduce_add(s0), simd::reduce_add(s1), simd::reduce_add(s2),
                         simd::reduce_add(s3)};
  for (index_t j = 0; j < count; ++j) y[j] = accumulate ? y[j] + alpha * sums[j] : alpha * sums[j];
}

/// \brief y[cols] = alpha a b (+ y) for one row, lanes along the columns of a right operand that is read
/// where it lies.
inline void combine_columns(const float* a, const float* b, index_t b_stride, index_t k, float* y,
                            index_t cols, float alpha, bool accumulate) {
  index_t j = 0;
  for (; j + 4 * simd::width <= cols; j += 4 * simd::width) {
    vec s0 = simd::zero(), s1 = simd::zero(), s2 = simd::zero(), s3 = simd::zero();
    for (index_t i = 0; i < k; ++i) {
      const vec x = simd::broadcast(a + i);
      const float* row = b + i * b_stride + j;
      s0 = simd::fmadd(x, simd::load(row), s0);
      s1 = simd::fmadd(x, simd::load(row + simd::width), s1);
      s2 = simd::fmadd(x, simd::load(row + 2 * simd::width), s2);
      s3 = simd::fmadd(x, simd::load(row + 3 * simd::width), s3);
    }
    finish_vector(s0, y + j, simd::width, simd::set(alpha), accumulate);
    finish_vector(s1, y + j + simd::width, simd::width, simd::set(alpha), accumulate);
    finish_vector(s2, y + j + 2 * simd::width, simd::width, simd::set(alpha), accumulate);
    finish_vector(s3, y + j + 3 * simd::width, simd::width, simd::set(alpha), accumulate);
  }
  for (; j < cols; j += simd::width) {
    vec sum = simd::zero();
    for (index_t i = 0; i < k; ++i)
      sum = simd::fmadd(simd::broadcast(a + i), simd::load_n(b + i * b_stride + j, cols - j), sum);
    finish_vector(sum, y + j, cols - j, simd::set(alpha), accumulate);
  }
}

/// \brief Few rows: packing the right operand would cost more than the product.
inline void multiply_few(const dense_tile& t) {
  for (index_t i = 0; i < t.rows; ++i) {
    const float* a = t.a + i * t.a_stride;
    float* y = t.y + i * t.y_stride;
    if (t.b_transposed)
      for (index_t j = 0; j < t.cols; j += 4)
        dot_rows(a, t.b + j * t.b_stride, t.b_stride, t.k, y + j, std::min<index_t>(4, t.cols - j), t.alpha,
                 t.accumulate);
    else
      combine_columns(a, t.b, t.b_stride, t.k, y, t.cols, t.alpha, t.accumulate);
  }
}

struct matmul_kernels {
  static constexpr index_t few_rows = 3;      ///< rows up to which operands are used where they lie
  static constexpr index_t dense_step = 256;  ///< k of one packed chunk
  static constexpr index_t dense_rows = 240;  ///< most rows of a tile
  static constexpr index_t dense_cols = 128;  ///< most columns of a tile
  static constexpr index_t dense_scratch = dense_step * (dense_rows + dense_cols);  ///< floats

  /// \brief One tile; `scratch` holds `dense_scratch` floats.
  static inline void multiply_dense(const dense_tile& t, float* scratch) {
    if (t.rows <= few_rows && !t.a_transposed) {
      multiply_few(t);
      return;
    }
    const equal_blocks blocks{t.rows, block_rows};
    float* packed_a = scratch;
    float* packed_b = scratch + dense_step * dense_rows;
    if (t.k == 0 && !t.accumulate)
      for (index_t i = 0; i < t.rows; ++i) std::fill_n(t.y + i * t.y_stride, t.cols, 0.0f);
    for (index_t k = 0; k < t.k; k += dense_step) {
      const index_t steps = std::min(dense_step, t.k - k);
      for (index_t b = 0; b < blocks.count(); ++b) {
        float* out = packed_a + blocks.begin(b) * steps;
        if (t.a_transposed)
          pack_left_straight(t.a + k * t.a_stride + blocks.begin(b), t.a_stride, blocks.size(b), steps, out);
        else
          pack_transposed(t.a + blocks.begin(b) * t.a_stride + k, t.a_stride, blocks.size(b), steps, steps,
                          out, blocks.size(b), false);
      }
      for (index_t col = 0; col < t.cols; col += sliver_cols)
        pack_sliver(t, k, steps, col, packed_b + col * steps);
      multiply_packed<float_product>({packed_a, blocks, steps}, 0, steps,
                                     {packed_b, sliver_cols * steps, sliver_cols, t.cols}, t.y, t.y_stride,
                                     t.alpha, t.accumulate || k > 0);
    }
  }

 private:
  static inline void pack_sliver(const dense_tile& t, index_t k, index_t steps, index_t col, float* out) {
    const index_t cols = std::min(sliver_cols, t.cols - col);
    if (!t.b_transposed) {
      pack_straight(t.b + k * t.b_stride + col, t.b_stride, cols, steps, out, sliver_cols);
      return;
    }
    for (index_t j = 0; j < sliver_cols; j += simd::width)
      pack_transposed(t.b + (col + std::min(j, cols)) * t.b_stride + k, t.b_stride,
                      std::clamp<index_t>(cols - j, 0, simd::width), steps, steps, out + j, sliver_cols,
                      false);
  }
};
