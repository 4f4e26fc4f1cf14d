// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/quant/format.hpp"

namespace pesc {

/// \brief Block-wise 4-bit NormalFloat storage, as QLoRA checkpoints hold it.
///
/// A block of weights shares one scale, the largest magnitude in the block; a weight is stored as the index of the
/// nearest of 16 fixed levels. Two codes make a byte, the first in the high nibble. Blocks run along the flattened
/// matrix and may straddle its rows.
///
/// \tparam Block  weights per scale: 32, 64, 128, ... 4096
/// \tparam Scales  `plain_scales` or `double_quant<>`
template <int Block = 64, ScaleCodec Scales = plain_scales>
struct nf4 {
  static_assert(Block >= 32 && Block <= 4096 && (Block & (Block - 1)) == 0,
                "pesc: nf4 block must be a power of two from 32 to 4096 weights");
  static_assert(Scales::kind != scale_kind::none, "pesc: nf4 needs scales, plain_scales or double_quant<>");

  static constexpr int bits = 4;
  static constexpr int block = Block;
  using scales = Scales;

  /// \brief The 16 values of the codes before the scale; part of the file format.
  ///
  /// Neighbouring quantiles of a unit normal, rescaled to [-1, 1], with an exact zero at code 7 (QLoRA, section 3).
  PESC_HOST_DEVICE static constexpr array<float, 16> levels() {
    return {-1.0f,
            -0.6961928009986877f,
            -0.5250730514526367f,
            -0.39491748809814453f,
            -0.28444138169288635f,
            -0.18477343022823334f,
            -0.09105003625154495f,
            0.0f,
            0.07958029955625534f,
            0.16093020141124725f,
            0.24611230194568634f,
            0.33791524171829224f,
            0.44070982933044434f,
            0.5626170039176941f,
            0.7229568362236023f,
            1.0f};
  }

  static constexpr format_info info() { return make_code4_info(levels(), Block, Scales::kind, "nf4"); }
  PESC_HOST_DEVICE static constexpr float level(std::uint8_t code) { return levels()[code & 0x0Fu]; }

  /// \brief Code of the level nearest to `u` in [-1, 1]; a tie goes to the lower code.
  PESC_HOST_DEVICE static constexpr std::uint8_t encode(float u) { return info().encode(u); }
};

static_assert(QuantFormat<nf4<>>);
static_assert(QuantFormat<nf4<64, double_quant<>>>);

}  // namespace pesc
