// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#ifndef XXH_INLINE_ALL
#define XXH_INLINE_ALL
#endif
#include <xxhash.h>

#include "pesc/io/file.hpp"

namespace pesc {

/// \brief Guards files against accidents: the 64-bit XXH64 of the bytes, seed 0, as `xxh64sum` prints it.
[[nodiscard]] inline std::uint64_t checksum(std::span<const std::byte> bytes) {
  return XXH64(bytes.data(), bytes.size(), 0);
}

/// \brief 16 lower-case hexadecimal digits.
[[nodiscard]] inline std::string checksum_text(std::uint64_t value) {
  constexpr char digits[] = "0123456789abcdef";
  std::string out(16, '0');
  for (std::size_t i = 0; i < 16; ++i) out[15 - i] = digits[value >> (4 * i) & 15u];
  return out;
}

/// \brief Size and checksum of a file, read piece by piece.
struct file_checksum {
  index_t bytes = 0;
  std::uint64_t value = 0;
  friend bool operator==(const file_checksum&, const file_checksum&) = default;
};

/// \throws io_error
[[nodiscard]] inline file_checksum checksum_file(const std::string& path) {
  const auto [file, size] = detail::open_to_read(path);
  XXH64_state_t state;
  XXH64_reset(&state, 0);
  std::vector<std::byte> piece(static_cast<std::size_t>(std::min<index_t>(size, 1 << 20)));
  for (index_t done = 0; done < size;) {
    const auto count = static_cast<std::size_t>(std::min<index_t>(size - done, 1 << 20));
    detail::read_exactly(file.get(), std::span{piece}.first(count), path);
    XXH64_update(&state, piece.data(), count);
    done += static_cast<index_t>(count);
  }
  return {size, XXH64_digest(&state)};
}

}  // namespace pesc
