// SPDX-License-Identifier: Apache-2.0
// Included by elementwise.inl.

struct optimizer_kernels {
  /// \brief One AdamW update of a register of parameters.
  struct adamw_update {
    vec beta1, beta2, rest1, rest2, inverse_root, epsilon, decay, step, factor;

    explicit adamw_update(const adamw_coefficients& c)
        : beta1{simd::set(c.beta1)},
          beta2{simd::set(c.beta2)},
          rest1{simd::set(c.rest1)},
          rest2{simd::set(c.rest2)},
          inverse_root{simd::set(1.0f / c.root_correction)},
          epsilon{simd::set(c.epsilon)},
          decay{simd::set(c.decay)},
          step{simd::set(c.step_size)},
          factor{simd::set(c.gradient_scale)} {}

    [[gnu::always_inline]] inline void operator()(vec& p, vec g, vec& m, vec& v) const {
      g = simd::mul(g, factor);
      m = simd::fmadd(beta1, m, simd::mul(rest1, g));
      v = simd::fmadd(beta2, v, simd::mul(simd::mul(rest2, g), g));
      const vec size = simd::fmadd(simd::sqrt(v), inverse_root, epsilon);
      p = simd::fnmadd(step, simd::div(m, size), simd::mul(p, decay));
    }
  };

  static void adamw(float* p, const float* g, float* m, float* v, index_t n, const adamw_coefficients& c) {
    const adamw_update update(c);
    index_t j = 0;
    for (; n - j >= simd::width; j += simd::width) {
      vec parameter = simd::load(p + j), mean = simd::load(m + j), square = simd::load(v + j);
      update(parameter, simd::load(g + j), mean, square);
      simd::store(p + j, parameter);
      simd::store(m + j, mean);
      simd::store(v + j, square);
    }
    if (j == n) return;
    vec parameter = simd::load_n(p + j, n - j), mean = simd::load_n(m + j, n - j),
        square = simd::load_n(v + j, n - j);
    update(parameter, simd::load_n(g + j, n - j), mean, square);
    simd::store_n(p + j, parameter, n - j);
    simd::store_n(m + j, mean, n - j);
    simd::store_n(v + j, square, n - j);
  }
};
