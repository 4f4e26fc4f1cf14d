// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

#include "pesc/core/types.hpp"
#include "pesc/core/views.hpp"
#include "pesc/io/element_type.hpp"

// Weights that GGUF files store in blocks of 32 along a row: half-precision scales and minima, then codes. Of two 4-bit codes
// in a byte the low one is weight i, the high one weight i + 16.

namespace pesc {

/// \brief Weights and bytes of one block; 1 weight for types that have no blocks.
struct block_size {
  index_t weights = 1;
  index_t bytes = 0;
};

/// \brief The block of a type that `decode_blocks` reads; no bytes for every other type.
[[nodiscard]] constexpr block_size block_of(element_type type) {
  switch (type) {
    case element_type::q4_0:
      return {32, 18};
    case element_type::q4_1:
      return {32, 20};
    case element_type::q8_0:
      return {32, 34};
    default:
      return {};
  }
}

[[nodiscard]] constexpr bool is_block_type(element_type type) { return block_of(type).bytes > 0; }

/// \brief One block apart: a weight is `scale * code + minimum`.
struct weight_block {
  float scale = 0;
  float minimum = 0;
  std::int8_t codes[32] = {};
};

/// \brief Takes a block of a block type apart; codes of Q4_0 are -8 to 7, of Q4_1 0 to 15, of Q8_0 -128 to 127.
/// \param from  the bytes of the block, at any address
[[nodiscard]] inline weight_block read_block(element_type type, const std::byte* from) {
  weight_block out;
  out.scale = to_float(load_unaligned<f16>(from));
  from += 2;
  if (type == element_type::q8_0) {
    for (std::size_t i = 0; i < 32; ++i) out.codes[i] = static_cast<std::int8_t>(from[i]);
    return out;
  }
  int zero = 8;
  if (type == element_type::q4_1) {
    zero = 0;
    out.minimum = to_float(load_unaligned<f16>(from));
    from += 2;
  }
  for (std::size_t i = 0; i < 16; ++i) {
    const auto byte = static_cast<int>(from[i]);
    out.codes[i] = static_cast<std::int8_t>((byte & 0x0F) - zero);
    out.codes[i + 16] = static_cast<std::int8_t>((byte >> 4) - zero);
  }
  return out;
}

/// \brief Writes the weights of whole blocks of a block type as floats.
/// \param out  32 for each block of `bytes`
inline void decode_blocks(element_type type, std::span<const std::byte> bytes, vector_view<float> out) {
  const index_t size = block_of(type).bytes;
  for (index_t b = 0; 32 * b < out.size; ++b) {
    const weight_block block = read_block(type, bytes.data() + b * size);
    for (index_t i = 0; i < 32; ++i)
      out[32 * b + i] = mul_then_add(block.scale, static_cast<float>(block.codes[i]), block.minimum);
  }
}

}  // namespace pesc
