// SPDX-License-Identifier: Apache-2.0
// Included once per instruction set, inside namespace `pesc::cpu::detail::<isa>` and its target region, after `vec`
// (the register type) and `simd` (operations on it) are defined there. Lambdas are not allowed: they would not
// belong to the region.

/// \brief Loops over arrays; members become members of `kernels`.
struct elementwise_kernels {
  /// \brief y += alpha x.
  static inline void add_scaled(const float* x, float alpha, float* y, index_t n) {
    const vec a = simd::set(alpha);
    index_t i = 0;
    for (; i + simd::width <= n; i += simd::width)
      simd::store(y + i, simd::fmadd(a, simd::load(x + i), simd::load(y + i)));
    if (i < n) simd::store_n(y + i, simd::fmadd(a, simd::load_n(x + i, n - i), simd::load_n(y + i, n - i)), n - i);
  }
};
