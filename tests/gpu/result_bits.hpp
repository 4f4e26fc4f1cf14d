// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <vector>

namespace support {

/// \brief Adds bytes that came from the device to the checksum of the running test case.
///
/// Runs that differ in the order of blocks and threads alone must agree on it: where the environment names a file in
/// `PESC_GPU_BITS`, each test case adds a line of its name and checksum there.
void note_bits(const void* bytes, std::size_t size);

template <class T>
void note_bits(const std::vector<T>& values) {
  note_bits(values.data(), values.size() * sizeof(T));
}

}  // namespace support
