// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <bit>
#include <cstring>

#include "pesc/quant/layout.hpp"
#include "pesc/quant/quantized_matrix.hpp"
#include "pesc/quant/scales.hpp"

namespace pesc::cpu {
inline namespace PESC_CPU_ABI {
namespace detail {

/// \brief What a level of one block is multiplied by, and what is added then.
struct block_scale {
  float factor = 1;
  float minimum = 0;
};

/// \brief A frozen weight as numbers and pointers, for kernels that know no formats.
struct frozen_weight {
  panel_layout layout{};
  const std::uint8_t* bytes = nullptr;
  const float* nested_absmax = nullptr;
  const float* map = nullptr;
  float offset = 0;
  int nested_shift =
      -1;  ///< log2 of the weights that share a second-level scale, -1 where that is no power of 2
  alignas(64) array<float, 16> levels{};
  /// Byte i of the 256 entries of the map is [256 i, 256 i + 256): tables for instructions that look up
  /// bytes.
  alignas(64) std::array<std::uint8_t, 1024> map_planes{};

  frozen_weight() = default;

  template <QuantFormat Format, class Layout>
  explicit frozen_weight(const quantized_view<Format, Layout>& w)
      : layout{w.layout()},
        bytes{w.codes},
        nested_absmax{w.scales.nested_absmax},
        map{w.scales.map},
        offset{w.scales.offset},
        levels{w.format().levels} {
    if (layout.scales != scale_kind::double_quant || map == nullptr) return;
    const auto unit = static_cast<std::uint64_t>(layout.block * nested_block);
    if (std::has_single_bit(unit)) nested_shift = std::countr_zero(unit);
    for (std::size_t code = 0; code < 256; ++code) {
      std::uint8_t entry[4];
      std::memcpy(entry, map + code, 4);
      for (std::size_t plane = 0; plane < 4; ++plane) map_planes[256 * plane + code] = entry[plane];
    }
  }

  /// \brief Second-level scale of the block that holds flattened weight `i`.
  index_t nested_index(index_t i) const {
    return nested_shift >= 0 ? i >> nested_shift : i / (layout.block * nested_block);
  }
};

}  // namespace detail
}  // namespace PESC_CPU_ABI
}  // namespace pesc::cpu
