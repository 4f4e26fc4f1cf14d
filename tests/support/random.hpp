// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <vector>

#include "pesc/core/types.hpp"

namespace support {

/// \brief Test data that is the same on every machine; splitmix64 over a seed.
class generator {
 public:
  explicit generator(std::uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15u + 0x1234567u) {}

  std::uint64_t bits() {
    std::uint64_t z = state_ += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
  }

  /// \brief Uniform in [low, high).
  double uniform(double low = 0, double high = 1) {
    return low + (high - low) * static_cast<double>(bits() >> 11) * 0x1p-53;
  }

  /// \brief Normal with mean 0.
  double normal(double deviation = 1) {
    const double radius = std::sqrt(-2 * std::log(1 - uniform()));
    return deviation * radius * std::cos(2 * std::numbers::pi * uniform());
  }

  /// \brief Whole number in [0, n).
  pesc::index_t below(pesc::index_t n) {
    return static_cast<pesc::index_t>(bits() % static_cast<std::uint64_t>(n));
  }

 private:
  std::uint64_t state_;
};

inline std::vector<double> uniform_doubles(pesc::index_t n, std::uint64_t seed, double low = -1,
                                           double high = 1) {
  generator g(seed);
  std::vector<double> values(static_cast<std::size_t>(n));
  for (double& value : values) value = g.uniform(low, high);
  return values;
}

inline std::vector<double> normal_doubles(pesc::index_t n, std::uint64_t seed, double deviation = 1) {
  generator g(seed);
  std::vector<double> values(static_cast<std::size_t>(n));
  for (double& value : values) value = g.normal(deviation);
  return values;
}

inline std::vector<float> uniform_floats(pesc::index_t n, std::uint64_t seed, double low = -1,
                                         double high = 1) {
  const std::vector<double> values = uniform_doubles(n, seed, low, high);
  std::vector<float> result;
  for (const double value : values) result.push_back(static_cast<float>(value));
  return result;
}

inline std::vector<float> normal_floats(pesc::index_t n, std::uint64_t seed, double deviation = 1) {
  const std::vector<double> values = normal_doubles(n, seed, deviation);
  std::vector<float> result;
  for (const double value : values) result.push_back(static_cast<float>(value));
  return result;
}

inline std::vector<std::uint8_t> random_bytes(pesc::index_t n, std::uint64_t seed) {
  generator g(seed);
  std::vector<std::uint8_t> values(static_cast<std::size_t>(n));
  for (std::uint8_t& value : values) value = static_cast<std::uint8_t>(g.bits() >> 56);
  return values;
}

/// \brief Dropout factors: 0 with probability `p`, else 1/(1-p).
inline std::vector<double> dropout_mask(pesc::index_t n, std::uint64_t seed, double p) {
  generator g(seed);
  std::vector<double> values(static_cast<std::size_t>(n));
  for (double& value : values) value = g.uniform() < p ? 0 : 1 / (1 - p);
  return values;
}

}  // namespace support
