// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdio>
#include <iterator>

#include <doctest/doctest.h>

#include "pesc/core/types.hpp"

namespace support {

/// \brief Outcome of a comparison; doctest prints it when a check fails.
struct near_result {
  bool close = false;
  double error = 0;  ///< max |actual - expected| / max |expected|
  double tolerance = 0;
  std::size_t position = 0;  ///< where the difference is largest
  double actual = 0;
  double expected = 0;
  std::size_t actual_size = 0;
  std::size_t expected_size = 0;

  explicit operator bool() const { return close; }
};

inline double as_double(double value) { return value; }
inline double as_double(float value) { return static_cast<double>(value); }
inline double as_double(pesc::bf16 value) { return static_cast<double>(pesc::to_float(value)); }
inline double as_double(pesc::f16 value) { return static_cast<double>(pesc::to_float(value)); }

/// \brief Compares two arrays by max |a - b| / max |b|; when all of b is zero, by max |a|.
///
/// `smallest_scale` replaces a smaller max |b|, for values that are zero up to rounding. A NaN never passes,
/// equal infinities do.
template <class A, class B>
near_result near(const A* actual, std::size_t actual_size, const B* expected, std::size_t expected_size,
                 double tolerance, double smallest_scale = 0) {
  near_result r;
  r.tolerance = tolerance;
  r.actual_size = actual_size;
  r.expected_size = expected_size;
  if (actual_size != expected_size) return r;
  double largest = 0;
  double worst = -1;
  for (std::size_t i = 0; i < actual_size; ++i) {
    const double a = as_double(actual[i]);
    const double b = as_double(expected[i]);
    if (std::isfinite(b)) largest = std::fmax(largest, std::fabs(b));
    const double difference = a == b ? 0 : std::isnan(a - b) ? INFINITY : std::fabs(a - b);  // inf equals inf
    if (difference <= worst) continue;
    worst = difference;
    r.position = i;
    r.actual = a;
    r.expected = b;
  }
  worst = std::fmax(worst, 0);
  largest = std::fmax(largest, smallest_scale);
  r.error = largest > 0 ? worst / largest : worst;
  r.close = r.error <= tolerance;
  return r;
}

/// \brief The same for containers with `data` and `size`; `CHECK(support::near(y, expected, 1e-5))`.
template <class A, class B>
near_result near(const A& actual, const B& expected, double tolerance, double smallest_scale = 0) {
  return near(std::data(actual), std::size(actual), std::data(expected), std::size(expected), tolerance,
              smallest_scale);
}

}  // namespace support

namespace doctest {

template <>
struct StringMaker<support::near_result> {
  static String convert(const support::near_result& r) {
    char text[200];
    if (r.actual_size != r.expected_size)
      std::snprintf(text, sizeof text, "%zu values, expected %zu", r.actual_size, r.expected_size);
    else
      std::snprintf(text, sizeof text, "error %.3g > %.3g; worst at %zu of %zu: %.12g, expected %.12g",
                    r.error, r.tolerance, r.position, r.actual_size, r.actual, r.expected);
    return String(text);
  }
};

}  // namespace doctest
