// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/core/array.hpp"
#include "pesc/core/types.hpp"

namespace pesc {

/// \brief Philox 4x32-10: four random words from a 128-bit counter and a 64-bit key.
///
/// Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (2011). A number depends on its
/// counter alone, never on how many were drawn before or by which thread.
PESC_HOST_DEVICE constexpr array<std::uint32_t, 4> philox(array<std::uint32_t, 4> counter,
                                                          array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t first = std::uint64_t{0xD2511F53u} * counter[0];
    const std::uint64_t second = std::uint64_t{0xCD9E8D57u} * counter[2];
    counter = {
        static_cast<std::uint32_t>(second >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(second),
        static_cast<std::uint32_t>(first >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(first)};
    key = {key[0] + 0x9E3779B9u, key[1] + 0xBB67AE85u};
  }
  return counter;
}

/// \brief Uniform number in [0, 1) with 24 bits.
PESC_HOST_DEVICE constexpr float to_unit(std::uint32_t word) {
  return static_cast<float>(word >> 8) * 0x1p-24f;
}

/// \brief What a random number is for; numbers of different sites never share a counter.
enum class random_site : std::uint8_t {
  adapter_dropout,
  lora_dropout,
  router_noise,
  initial_weights,
  sampling,
  data_order
};

/// \brief Where in a run a stream of random numbers belongs.
struct random_stream {
  std::uint64_t seed = 0;
  std::uint32_t step = 0;  ///< micro-batch counter of the run
  std::uint16_t layer = 0;
  random_site site = random_site::initial_weights;
  std::uint8_t part = 0;  ///< tells apart streams of one site and layer, such as the slots of a token

  /// \brief The four words at (`row`, columns 4 * `quad` to 4 * `quad` + 3).
  PESC_HOST_DEVICE constexpr array<std::uint32_t, 4> words(std::uint32_t row, std::uint32_t quad) const {
    const std::uint32_t where =
        static_cast<std::uint32_t>(layer) << 16 | static_cast<std::uint32_t>(site) << 8 | part;
    return philox({quad, row, step, where},
                  {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
  }

  /// \brief The uniform number in [0, 1) at (`row`, `col`).
  PESC_HOST_DEVICE constexpr float uniform(std::uint32_t row, std::uint32_t col) const {
    return to_unit(words(row, col / 4)[col % 4]);
  }
};

}  // namespace pesc
