// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/core/views.hpp"
#include "pesc/quant/quantized_matrix.hpp"
#include "pesc/quant/scales.hpp"

namespace pesc::gpu::detail {

/// \brief A frozen weight in the order of fragments as numbers and pointers, for kernels that know no
/// formats.
struct frozen_weight {
  fragment_layout layout{};
  const std::uint8_t* codes = nullptr;
  scale_tensors<device_space> scales{};
  array<float, 16> levels{};
  std::uint8_t zero = 0;          ///< code of zero
  int block_shift = -1;           ///< log2 of the weights of a block, -1 where that is no power of 2
  std::uint32_t last_nested = 0;  ///< number of the last second-level scale

  frozen_weight() = default;

  template <QuantFormat Format>
  explicit frozen_weight(const quantized_view<Format, fragments, device_space>& w)
      : layout{w.layout()},
        codes{w.codes},
        scales{w.scales},
        levels{w.format().levels},
        zero{layout.element == element_kind::code4 ? w.format().encode(0.0f) : std::uint8_t{0}} {
    for (int shift = 0; shift < 32; ++shift)
      if (layout.block == index_t{1} << shift) block_shift = shift;
    if (layout.scales == scale_kind::double_quant && !w.empty())
      last_nested =
          static_cast<std::uint32_t>((layout.rows * layout.cols - 1) / (layout.block * nested_block));
  }

  /// \brief Scale of (`row`, `k`), for any shape.
  __device__ float scale(index_t row, index_t k) const {
    if (layout.scales == scale_kind::none) return 1.0f;
    const index_t entry = layout.scale_of(row, k);
    if (layout.scales == scale_kind::plain) return scales.absmax[entry];
    const float nested = scales.nested_absmax[layout.block_of(row, k) / nested_block];
    return nested_scale(scales.map[scales.codes[entry]], nested, scales.offset);
  }
};

}  // namespace pesc::gpu::detail
