// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cmath>
#include <string>

#include "support/crc32.hpp"
#include "support/reference_quant.hpp"

/// Input numbers of the published vectors of the 4-bit formats, and how those vectors are written.
namespace quant_vectors {

using reference::index_t;
using reference::list;

inline std::uint32_t mixed(std::uint32_t h) {
  h ^= h >> 16;
  h *= 0x85ebca6bu;
  h ^= h >> 13;
  h *= 0xc2b2ae35u;
  return h ^ h >> 16;
}

/// \brief Multiple of 2^-21 in [-1, 1).
inline float fraction(index_t i) {
  const auto word = static_cast<std::int32_t>(mixed(static_cast<std::uint32_t>(i)));
  return static_cast<float>(std::floor(static_cast<double>(word) / 1024) * 0x1p-21);
}

/// \brief Weight-like number: a scaled sum of four fractions.
inline float weight(index_t i) {
  float sum = 0;
  for (index_t j = 0; j < 4; ++j) sum += fraction(4 * i + j);
  return 0.02f * sum;
}

/// \brief Weights `begin` to `end` - 1.
inline list<float> weights(index_t begin, index_t end) {
  list<float> values;
  for (index_t i = begin; i < end; ++i) values.push_back(weight(i));
  return values;
}

/// \brief Bytes as hexadecimal digits.
inline std::string hex(const list<std::uint8_t>& bytes) {
  std::string text;
  for (const unsigned byte : bytes) {
    text += "0123456789abcdef"[byte >> 4];
    text += "0123456789abcdef"[byte & 15];
  }
  return text;
}

inline list<std::uint32_t> bits(const list<float>& values) {
  list<std::uint32_t> result;
  for (const float value : values) result.push_back(std::bit_cast<std::uint32_t>(value));
  return result;
}

inline float from_bits(std::uint32_t word) { return std::bit_cast<float>(word); }

/// \brief CRC-32 of values rounded to 16 bits by `bits_of`, such as `reference::bf16_bits`.
template <class BitsOf>
std::uint32_t crc_of(const list<float>& values, const BitsOf& bits_of) {
  list<std::uint16_t> halves;
  for (const float value : values) halves.push_back(bits_of(value));
  return support::crc32(halves);
}

}  // namespace quant_vectors
