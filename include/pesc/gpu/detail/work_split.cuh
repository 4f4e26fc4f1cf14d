// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "pesc/core/macros.hpp"

namespace pesc::gpu::detail {

/// \brief Cuts a list of equal tiles, each of `depth` units, into ranges of equal length for blocks.
///
/// A range may begin or end inside a tile; the blocks of a tile then add their parts in the order of the
/// units. The order depends on these three numbers alone. `tiles * depth * blocks` must be below 2^32.
struct work_split {
  std::uint32_t tiles = 0;
  std::uint32_t depth = 0;
  std::uint32_t blocks = 1;

  PESC_HOST_DEVICE std::uint32_t units() const { return tiles * depth; }
  /// \brief First unit of `block`; of `blocks`, the number of units.
  PESC_HOST_DEVICE std::uint32_t begin(std::uint32_t block) const { return block * units() / blocks; }
  /// \brief Block that has `unit`.
  PESC_HOST_DEVICE std::uint32_t owner(std::uint32_t unit) const {
    return ((unit + 1) * blocks - 1) / units();
  }
  PESC_HOST_DEVICE std::uint32_t first_owner(std::uint32_t tile) const { return owner(tile * depth); }
  /// \brief Number of blocks that have units of `tile`.
  PESC_HOST_DEVICE std::uint32_t owners(std::uint32_t tile) const {
    return owner((tile + 1) * depth - 1) - first_owner(tile) + 1;
  }
};

/// \brief Adds one to a counter and tells whether all `expected` others have come, in which case it is zero
/// again.
///
/// The caller has written its part before, and a barrier of the block lies between; whoever comes last sees
/// all parts.
__device__ inline bool last_of(unsigned* ticket, unsigned expected) {
  __threadfence();
  const bool last = atomicAdd(ticket, 1u) + 1 == expected;
  if (last) *ticket = 0;
  __threadfence();
  return last;
}

}  // namespace pesc::gpu::detail
