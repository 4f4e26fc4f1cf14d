// SPDX-License-Identifier: Apache-2.0
// Included once per instruction set, inside namespace `pesc::cpu::detail::<isa>` and its target region, after
// `vec` (the register type) and `simd` (operations on it) are defined there.

/// \brief exp(x) to about one unit in the last place; below -86.6, next to where results turn subnormal, 0;
/// NaN stays.
///
/// exp(x) = 2^n exp(r) with n the nearest integer to x / ln 2; the minimax polynomial of exp on [-ln2 / 2,
/// ln2 / 2] has a relative error of 2e-9.
[[gnu::always_inline]] inline vec exp(vec x) {
  if constexpr (simd::width < 8) {
    // Without vector instructions the library's function is faster, and more exact.
    float lanes[simd::width];
    simd::store(lanes, x);
    for (float& lane : lanes) lane = std::exp(lane);
    return simd::load(lanes);
  }
  const vec bounded = simd::min(simd::set(89.0f), x);
  const vec n =
      simd::max(simd::round(simd::mul(bounded, simd::set(1.44269504088896341f))), simd::set(-125.0f));
  // ln 2 in two parts, so that n times the first is exact.
  vec r = simd::fmadd(n, simd::set(-0.693359375f), bounded);
  r = simd::fmadd(n, simd::set(2.12194440e-4f), r);
  vec p = simd::set(1.394110843e-3f);
  p = simd::fmadd(p, r, simd::set(8.375126398e-3f));
  p = simd::fmadd(p, r, simd::set(4.16663529e-2f));
  p = simd::fmadd(p, r, simd::set(1.666641551e-1f));
  p = simd::fmadd(p, r, simd::set(5.000000047e-1f));
  p = simd::fmadd(p, r, simd::set(1.000000038f));
  p = simd::fmadd(p, r, simd::set(1.0f));
  // One factor of 2 apart: the largest n is 128, which a float's exponent does not reach.
  const vec power = simd::exp2_int(simd::sub(n, simd::set(1.0f)));
  const vec result = simd::mul(simd::mul(p, power), simd::set(2.0f));
  return simd::select(simd::less(x, simd::set(-86.6f)), simd::zero(), result);
}

[[gnu::always_inline]] inline vec sigmoid(vec x) {
  const vec one = simd::set(1.0f);
  return simd::div(one, simd::add(one, exp(simd::sub(simd::zero(), x))));
}

/// \brief As above, with `rest` = 1 - sigmoid(x), which is not rounded to zero for large x.
[[gnu::always_inline]] inline vec sigmoid(vec x, vec& rest) {
  const vec one = simd::set(1.0f);
  const vec e = simd::min(simd::set(1e37f), exp(simd::sub(simd::zero(), x)));
  const vec q = simd::div(one, simd::add(one, e));
  rest = simd::mul(e, q);
  return q;
}

/// \brief The normal distribution function and `density` = exp(-x² / 2), to an absolute error of 1e-7.
///
/// erfc(z) = t exp(-z²) P(t) with t = 1 / (1 + z / 2) for z >= 0; P is a minimax polynomial with an error of
/// 5e-8.
[[gnu::always_inline]] inline vec normal_distribution(vec x, vec& density) {
  const vec one = simd::set(1.0f);
  const vec z = simd::mul(simd::abs(x), simd::set(0.70710678118654752f));
  const vec t = simd::div(one, simd::fmadd(z, simd::set(0.5f), one));
  density = exp(simd::sub(simd::zero(), simd::mul(z, z)));
  vec p = simd::set(-0.06078247933f);
  p = simd::fmadd(p, t, simd::set(0.2925595601f));
  p = simd::fmadd(p, t, simd::set(-0.5028517418f));
  p = simd::fmadd(p, t, simd::set(0.294839248f));
  p = simd::fmadd(p, t, simd::set(-0.03731012052f));
  p = simd::fmadd(p, t, simd::set(0.2068051321f));
  p = simd::fmadd(p, t, simd::set(0.2421713491f));
  p = simd::fmadd(p, t, simd::set(0.2824881644f));
  p = simd::fmadd(p, t, simd::set(0.2820808359f));
  const vec tail = simd::mul(simd::mul(simd::set(0.5f), t), simd::mul(density, p));
  return simd::select(simd::less(simd::zero(), x), simd::sub(one, tail), tail);
}

/// \brief Value and derivative of an activation; a user's own goes through its scalar functions, lane by
/// lane.
template <class A>
struct activation_kernel {
  static inline vec value(vec x) {
    float lanes[simd::width];
    simd::store(lanes, x);
    for (float& lane : lanes) lane = A::value(lane);
    return simd::load(lanes);
  }
  static inline vec value(vec x, vec& derivative) {
    float lanes[simd::width];
    simd::store(lanes, x);
    for (float& lane : lanes) lane = A::derivative(lane);
    derivative = simd::load(lanes);
    return value(x);
  }
};

template <>
struct activation_kernel<silu> {
  [[gnu::always_inline]] static inline vec value(vec x) { return simd::mul(x, sigmoid(x)); }
  [[gnu::always_inline]] static inline vec value(vec x, vec& derivative) {
    vec rest;
    const vec q = sigmoid(x, rest);
    derivative = simd::mul(q, simd::fmadd(x, rest, simd::set(1.0f)));
    return simd::mul(x, q);
  }
};

template <>
struct activation_kernel<gelu> {
  [[gnu::always_inline]] static inline vec value(vec x) {
    vec density;
    return simd::mul(x, normal_distribution(x, density));
  }
  [[gnu::always_inline]] static inline vec value(vec x, vec& derivative) {
    vec density;
    const vec below = normal_distribution(x, density);
    // Times x last: an infinite x² must meet the zero density first.
    derivative = simd::fmadd(simd::mul(simd::set(0.39894228040143268f), density), x, below);
    return simd::mul(x, below);
  }
};

template <>
struct activation_kernel<gelu_tanh> {
  /// (1 + tanh(u)) / 2 is sigmoid(2 u).
  [[gnu::always_inline]] static inline vec twice_u(vec x) {
    const vec bend = simd::fmadd(simd::mul(simd::set(0.044715f), x), x, simd::set(1.0f));
    return simd::mul(simd::mul(simd::set(1.59576912160573071f), x), bend);
  }
  [[gnu::always_inline]] static inline vec value(vec x) { return simd::mul(x, sigmoid(twice_u(x))); }
  [[gnu::always_inline]] static inline vec value(vec x, vec& derivative) {
    vec rest;
    const vec q = sigmoid(twice_u(x), rest);
    const vec bend = simd::fmadd(simd::mul(simd::set(0.134145f), x), x, simd::set(1.0f));
    const vec slope = simd::mul(simd::set(1.59576912160573071f), bend);
    derivative = simd::fmadd(simd::mul(simd::mul(x, q), rest), slope, q);
    return simd::mul(x, q);
  }
};

template <>
struct activation_kernel<relu> {
  [[gnu::always_inline]] static inline vec value(vec x) {
    return simd::select(simd::less(simd::zero(), x), x, simd::zero());
  }
  [[gnu::always_inline]] static inline vec value(vec x, vec& derivative) {
    derivative = simd::select(simd::less(simd::zero(), x), simd::set(1.0f), simd::zero());
    return value(x);
  }
};

#include "pesc/cpu/detail/reduce.inl"

/// \brief Operations on one row of n elements. Outputs may be inputs.
struct row_kernels {
  template <class A>
  static void activate(const float* x, float* y, index_t n) {
    for (index_t j = 0; j < n; j += simd::width) {
      if (n - j >= simd::width)
        simd::store(y + j, activation_kernel<A>::value(simd::load(x + j)));
      else
        simd::store_n(y + j, activation_kernel<A>::value(simd::load_n(x + j, n - j)), n - j);
    }
  }

  template <class A>
  static void activate_backward(const float* x, const float* dy, float* dx, index_t n) {
    vec d;
    for (index_t j = 0; j < n; j += simd::width) {
      if (n - j >= simd::width) {
        activation_kernel<A>::value(simd::load(x + j), d);
        simd::store(dx + j, simd::mul(simd::load(dy + j), d));
      } else {
        activation_kernel<A>::value(simd::load_n(x + j, n - j), d);
        simd::store_n(dx + j, simd::mul(simd::load_n(dy + j, n - j), d), n - j);
      }
    }
  }

  template <class A>
  static void gated_activate(const float* gate, const float* up, float* out, index_t n) {
    for (index_t j = 0; j < n; j += simd::width) {
      if (n - j >= simd::width) {
        simd::store(out + j,
                    simd::mul(activation_kernel<A>::value(simd::load(gate + j)), simd::load(up + j)));
      } else {
        const vec a = activation_kernel<A>::value(simd::load_n(gate + j, n - j));
        simd::store_n(out + j, simd::mul(a, simd::load_n(up + j, n - j)), n - j);
      }
    }
  }

  template <class A>
  static void gated_backward(const float* gate, const float* up, const float* dout, float* dgate, float* dup,
                             index_t n) {
    vec d;
    for (index_t j = 0; j < n; j += simd::width) {
      if (n - j >= simd::width) {
        const vec a = activation_kernel<A>::value(simd::load(gate + j), d);
        const vec u = simd::load(up + j);
        const vec g = simd::load(dout + j);
        simd::store(dgate + j, simd::mul(simd::mul(g, u), d));
        simd::store(dup + j, simd::mul(g, a));
      } else {
        const vec a = activation_kernel<A>::value(simd::load_n(gate + j, n - j), d);
        const vec u = simd::load_n(up + j, n - j);
        const vec g = simd::load_n(dout + j, n - j);
        simd::store_n(dgate + j, simd::mul(simd::mul(g, u), d), n - j);
        simd::store_n(dup + j, simd::mul(g, a), n - j);
      }
    }
  }

  /// y += alpha * x.
  static void add_scaled(const float* x, float alpha, float* y, index_t n) {
    const vec a = simd::set(alpha);
    index_t j = 0;
    for (; n - j >= simd::width; j += simd::width)
      simd::store(y + j, simd::fmadd(a, simd::load(x + j), simd::load(y + j)));
    if (j < n)
      simd::store_n(y + j, simd::fmadd(a, simd::load_n(x + j, n - j), simd::load_n(y + j, n - j)), n - j);
  }

  /// y = alpha * x.
  static void scaled(const float* x, float alpha, float* y, index_t n) {
    const vec a = simd::set(alpha);
    index_t j = 0;
    for (; n - j >= simd::width; j += simd::width) simd::store(y + j, simd::mul(a, simd::load(x + j)));
    if (j < n) simd::store_n(y + j, simd::mul(a, simd::load_n(x + j, n - j)), n - j);
  }

  /// Converts to another element type.
  template <class S, class T>
  static void convert(const S* x, T* y, index_t n) {
    index_t j = 0;
    for (; n - j >= simd::width; j += simd::width) simd::store_as(y + j, simd::load_as_float(x + j));
    for (; j < n; ++j) y[j] = from_float<T>(to_float(x[j]));
  }
};

#include "pesc/cpu/detail/attention.inl"
#include "pesc/cpu/detail/optimizer.inl"

struct elementwise_kernels : row_kernels, reduce_kernels, optimizer_kernels, attention_kernels {};
