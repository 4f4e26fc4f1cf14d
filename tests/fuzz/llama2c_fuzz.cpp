// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <vector>

#include "fuzz/mutation.hpp"
#include "pesc/io/llama2c.hpp"

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned seed) {
  fuzz::chooser choose{seed};
  if (choose.below(2) == 0 || size < 28) return LLVMFuzzerMutate(data, size, max_size);
  // The header is seven numbers.
  std::vector<fuzz::field> fields;
  for (std::size_t i = 0; i < 7; ++i) fields.push_back({4 * i, 4});
  fuzz::set_to_border(data, fields, choose);
  return size;
}

// What is accepted has arrays that lie inside the file, one behind the other.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span bytes{reinterpret_cast<const std::byte*>(data), size};
  try {
    const auto file = pesc::llama2c_file::from_bytes("fuzz", bytes);
    const pesc::llama2c_part parts[] = {
        file.embedding, file.attention_norm, file.query, file.key, file.value,      file.output,
        file.ffn_norm,  file.gate,           file.down,  file.up,  file.final_norm, file.head};
    std::size_t count = 0;
    for (const auto& part : parts) {
      const auto values = pesc::to_floats(file.tensor("t", part, 0, 1, {part.count}), "fuzz");
      if (static_cast<pesc::index_t>(values.size()) != part.count) std::abort();
      count += values.size();
    }
    if (file.header.tied) count -= static_cast<std::size_t>(file.head.count);
    if (4 * count + 28 > size) std::abort();
  } catch (const pesc::format_error&) {
  }
  return 0;
}
