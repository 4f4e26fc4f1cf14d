// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/quant/format.hpp"

namespace pesc {

/// \brief The other 4-bit code of the same checkpoints: a sign, and eight magnitudes in the order the files use.
///
/// \tparam Block  weights per scale: 32, 64, 128, ... 4096
/// \tparam Scales  `plain_scales` or `double_quant<>`
template <int Block = 64, ScaleCodec Scales = plain_scales>
struct fp4 {
  static_assert(Block >= 32 && Block <= 4096 && (Block & (Block - 1)) == 0,
                "pesc: fp4 block must be a power of two from 32 to 4096 weights");
  static_assert(Scales::kind != scale_kind::none, "pesc: fp4 needs scales, plain_scales or double_quant<>");

  static constexpr int bits = 4;
  static constexpr int block = Block;
  using scales = Scales;

  /// \brief The 16 values of the codes before the scale; part of the file format and not in ascending order.
  PESC_HOST_DEVICE static constexpr array<float, 16> levels() {
    return {0.0f,  0.0625f / 12,  8.0f / 12,  1.0f,  4.0f / 12,  0.5f,  2.0f / 12,  0.25f,
            -0.0f, -0.0625f / 12, -8.0f / 12, -1.0f, -4.0f / 12, -0.5f, -2.0f / 12, -0.25f};
  }

  static constexpr format_info info() { return make_code4_info(levels(), Block, Scales::kind, "fp4"); }
  PESC_HOST_DEVICE static constexpr float level(std::uint8_t code) { return levels()[code & 0x0Fu]; }

  /// \brief Code of the level nearest to `u` in [-1, 1]; a tie goes to the smaller level.
  PESC_HOST_DEVICE static constexpr std::uint8_t encode(float u) { return info().encode(u); }
};

static_assert(QuantFormat<fp4<>>);

}  // namespace pesc
