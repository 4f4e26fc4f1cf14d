// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "pesc/io/tensor_info.hpp"
#include "pesc/quant/q4_0.hpp"
#include "pesc/quant/q4_1.hpp"
#include "pesc/quant/q8_0.hpp"
#include "pesc/quant/quantized_matrix.hpp"

namespace pesc {

/// \brief The format that holds weights of a block type as they are; nothing for every other type.
[[nodiscard]] inline std::optional<format_info> format_of_blocks(element_type type) {
  switch (type) {
    case element_type::q4_0:
      return q4_0::info();
    case element_type::q4_1:
      return q4_1::info();
    case element_type::q8_0:
      return q8_0::info();
    default:
      return {};
  }
}

/// \brief A weight of a block type without a change of its codes; scales become float, which holds them exactly.
/// \param tensor  [rows, cols], its values in memory
/// \throws shape_error where `Format` is fixed and the file stores another
template <QuantFormat Format = any_format>
[[nodiscard]] quantized_matrix<Format, row_blocks> read_blocks(const tensor_info& tensor) {
  const format_info format = *format_of_blocks(tensor.dtype);
  quantized_matrix<Format, row_blocks> out(format, tensor.shape[0], tensor.shape[1]);
  // A code of 4 bits counts from the lowest level.
  const int lowest = tensor.dtype == element_type::q4_0 ? -8 : 0;
  std::uint8_t* codes = out.codes().data;
  for (index_t b = 0; b < format.blocks(tensor.count()); ++b) {
    const weight_block block =
        read_block(tensor.dtype, tensor.bytes.data() + b * block_of(tensor.dtype).bytes);
    out.absmax()[b] = block.scale;
    if (format.scales == scale_kind::with_minimum) out.minimum()[b] = block.minimum;
    for (std::size_t i = 0; i < 32; ++i) {
      if (format.element == element_kind::code8) {
        *codes++ = static_cast<std::uint8_t>(block.codes[i]);
      } else if (i % 2 == 0) {
        const int first = block.codes[i] - lowest, second = block.codes[i + 1] - lowest;
        *codes++ = static_cast<std::uint8_t>(first << 4 | second);
      }
    }
  }
  return out;
}

}  // namespace pesc
