// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace support {

/// \brief CRC-32 of zlib (polynomial 0xEDB88320) over `size` bytes.
inline std::uint32_t crc32(const void* bytes, std::size_t size) {
  const auto* p = static_cast<const unsigned char*>(bytes);
  std::uint32_t crc = 0xFFFFFFFFu;
  for (std::size_t i = 0; i < size; ++i) {
    crc ^= p[i];
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1u ? 0xEDB88320u : 0u);
  }
  return ~crc;
}

/// \brief CRC-32 over the elements of a contiguous container, as they lie in memory.
template <class Container>
std::uint32_t crc32(const Container& values) {
  static_assert(std::is_trivially_copyable_v<typename Container::value_type>);
  return crc32(values.data(), values.size() * sizeof(typename Container::value_type));
}

}  // namespace support
