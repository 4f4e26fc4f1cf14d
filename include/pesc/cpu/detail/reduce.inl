// SPDX-License-Identifier: Apache-2.0
// Included by elementwise.inl.

/// \brief a, with -infinity for NaN.
[[gnu::always_inline]] inline vec no_nan(vec a) {
  const vec least = simd::set(-HUGE_VALF);
  // The maximum returns its second operand where one is NaN.
  return simd::max(a, least);
}

/// \brief Reductions over one row of n elements, and what follows from them.
struct reduce_kernels {
  /// <a, b>; four partial sums, so that additions do not wait for one another.
  static float dot(const float* a, const float* b, index_t n) {
    constexpr index_t w = simd::width;
    vec s0 = simd::zero(), s1 = s0, s2 = s0, s3 = s0;
    index_t j = 0;
    for (; n - j >= 4 * w; j += 4 * w) {
      s0 = simd::fmadd(simd::load(a + j), simd::load(b + j), s0);
      s1 = simd::fmadd(simd::load(a + j + w), simd::load(b + j + w), s1);
      s2 = simd::fmadd(simd::load(a + j + 2 * w), simd::load(b + j + 2 * w), s2);
      s3 = simd::fmadd(simd::load(a + j + 3 * w), simd::load(b + j + 3 * w), s3);
    }
    for (; n - j >= w; j += w) s0 = simd::fmadd(simd::load(a + j), simd::load(b + j), s0);
    if (j < n) s1 = simd::fmadd(simd::load_n(a + j, n - j), simd::load_n(b + j, n - j), s1);
    return simd::reduce_add(simd::add(simd::add(s0, s1), simd::add(s2, s3)));
  }

  /// Sum of a * b * c.
  static float dot(const float* a, const float* b, const float* c, index_t n) {
    constexpr index_t w = simd::width;
    vec s0 = simd::zero(), s1 = s0;
    index_t j = 0;
    for (; n - j >= 2 * w; j += 2 * w) {
      s0 = simd::fmadd(simd::load(a + j), simd::mul(simd::load(b + j), simd::load(c + j)), s0);
      s1 = simd::fmadd(simd::load(a + j + w), simd::mul(simd::load(b + j + w), simd::load(c + j + w)), s1);
    }
    for (; n - j >= w; j += w)
      s0 = simd::fmadd(simd::load(a + j), simd::mul(simd::load(b + j), simd::load(c + j)), s0);
    if (j < n) {
      const vec product = simd::mul(simd::load_n(b + j, n - j), simd::load_n(c + j, n - j));
      s1 = simd::fmadd(simd::load_n(a + j, n - j), product, s1);
    }
    return simd::reduce_add(simd::add(s0, s1));
  }

  /// Largest element, where NaN counts as -infinity.
  static float row_max(const float* x, index_t n) {
    vec top = simd::set(-HUGE_VALF);
    index_t j = 0;
    for (; n - j >= simd::width; j += simd::width) top = simd::max(top, no_nan(simd::load(x + j)));
    float result = simd::reduce_max(top);
    for (; j < n; ++j) result = x[j] > result ? x[j] : result;
    return result;
  }

  /// Sum of exp(x - top), where NaN counts as -infinity; with `y` also keeps the terms there. `top` is
  /// finite.
  template <bool Keep>
  static float exp_row(const float* x, float top, float* y, index_t n) {
    const vec shift = simd::set(top);
    vec total = simd::zero();
    index_t j = 0;
    for (; n - j >= simd::width; j += simd::width) {
      const vec e = exp(simd::sub(no_nan(simd::load(x + j)), shift));
      if constexpr (Keep) simd::store(y + j, e);
      total = simd::add(total, e);
    }
    float result = simd::reduce_add(total);
    if (j == n) return result;
    // Lanes without an element hold exp(-top), so they are not added.
    float lanes[simd::width];
    simd::store(lanes, exp(simd::sub(no_nan(simd::load_n(x + j, n - j)), shift)));
    for (index_t i = 0; i < n - j; ++i) {
      if constexpr (Keep) y[j + i] = lanes[i];
      result += lanes[i];
    }
    return result;
  }

  /// y = x * factor * weight.
  static void norm_row(const float* x, float factor, const float* weight, float* y, index_t n) {
    const vec f = simd::set(factor);
    index_t j = 0;
    for (; n - j >= simd::width; j += simd::width)
      simd::store(y + j, simd::mul(simd::mul(simd::load(x + j), f), simd::load(weight + j)));
    if (j < n)
      simd::store_n(
          y + j, simd::mul(simd::mul(simd::load_n(x + j, n - j), f), simd::load_n(weight + j, n - j)), n - j);
  }

  /// dx += dy * weight * factor - x * along.
  static void norm_backward_row(const float* x, const float* weight, const float* dy, float factor,
                                float along, float* dx, index_t n) {
    const vec f = simd::set(factor), a = simd::set(along);
    index_t j = 0;
    for (; n - j >= simd::width; j += simd::width) {
      const vec d = simd::fmadd(simd::mul(simd::load(dy + j), simd::load(weight + j)), f, simd::load(dx + j));
      simd::store(dx + j, simd::fnmadd(simd::load(x + j), a, d));
    }
    if (j == n) return;
    const vec product = simd::mul(simd::load_n(dy + j, n - j), simd::load_n(weight + j, n - j));
    const vec d = simd::fmadd(product, f, simd::load_n(dx + j, n - j));
    simd::store_n(dx + j, simd::fnmadd(simd::load_n(x + j, n - j), a, d), n - j);
  }
};
