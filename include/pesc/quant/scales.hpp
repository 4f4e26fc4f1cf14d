// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <concepts>

#include "pesc/core/types.hpp"
#include "pesc/core/views.hpp"

namespace pesc {

/// \brief How the scales of blocks are stored.
enum class scale_kind : std::uint8_t { none, plain, double_quant, with_minimum };

/// \brief Blocks of scales that share one second-level scale under double quantisation.
inline constexpr int nested_block = 256;

/// \brief The stored tensors of a matrix's scales, as a checkpoint holds them; unused ones are null.
///
/// plain and with_minimum: `absmax[b]`. double_quant: `map[codes[b]] * nested_absmax[b / 256] + offset`.
template <class Space = host_space>
struct scale_tensors {
  const float* absmax = nullptr;
  const std::uint8_t* codes = nullptr;
  const float* nested_absmax = nullptr;
  const float* map = nullptr;  ///< 256 entries
  float offset = 0;
  const float* minimum = nullptr;  ///< with_minimum: one per block, added to its weights
};

/// \brief Scale of block `b`. Multiplication, rounding, addition: the file format fixes these bits (QLoRA, section 3).
PESC_HOST_DEVICE inline float nested_scale(float entry, float nested_absmax, float offset) {
  return mul_then_add(entry, nested_absmax, offset);
}

/// \brief One float per block.
struct plain_scales {
  static constexpr scale_kind kind = scale_kind::plain;
  template <class Space>
  PESC_HOST_DEVICE static float decode(const scale_tensors<Space>& s, index_t b) {
    return s.absmax[b];
  }
};

/// \brief Scales quantised again to 8 bits in blocks of `Block` with an offset.
template <int Block = nested_block>
struct double_quant {
  static_assert(Block == nested_block, "pesc: checkpoints use second-level blocks of 256 scales");
  static constexpr scale_kind kind = scale_kind::double_quant;
  template <class Space>
  PESC_HOST_DEVICE static float decode(const scale_tensors<Space>& s, index_t b) {
    return nested_scale(s.map[s.codes[b]], s.nested_absmax[b / Block], s.offset);
  }
};

/// \brief One float per block, and one that is added to every weight of it.
struct scales_with_minimum {
  static constexpr scale_kind kind = scale_kind::with_minimum;
  template <class Space>
  PESC_HOST_DEVICE static float decode(const scale_tensors<Space>& s, index_t b) {
    return s.absmax[b];
  }
};

/// \brief Storage without scales.
struct no_scales {
  static constexpr scale_kind kind = scale_kind::none;
  template <class Space>
  PESC_HOST_DEVICE static float decode(const scale_tensors<Space>&, index_t) {
    return 1.0f;
  }
};

/// \brief How the scales of a format are stored and read.
template <class S>
concept ScaleCodec = requires(const scale_tensors<host_space>& tensors, index_t b) {
  { S::kind } -> std::convertible_to<scale_kind>;
  { S::decode(tensors, b) } -> std::same_as<float>;
};

static_assert(ScaleCodec<plain_scales>);
static_assert(ScaleCodec<double_quant<>>);
static_assert(ScaleCodec<scales_with_minimum>);
static_assert(ScaleCodec<no_scales>);

/// \brief Scale of block `b`, of whichever kind.
template <class Space>
PESC_HOST_DEVICE inline float decode_scale(scale_kind kind, const scale_tensors<Space>& s, index_t b) {
  if (kind == scale_kind::plain || kind == scale_kind::with_minimum) return plain_scales::decode(s, b);
  if (kind == scale_kind::double_quant) return double_quant<>::decode(s, b);
  return 1.0f;
}

/// \brief The 256 values of the signed 8-bit dynamic map that second-level scales and 8-bit optimisers use.
///
/// Dettmers et al., "8-bit optimizers via block-wise quantization" (2022). Entry 127 is 0, entry 255 is 1, and
/// there is no -1. A file that stores its own map is read with that one, since builds differ in last bits.
inline const std::array<float, 256>& dynamic_map() {
  static const std::array<float, 256> map = [] {
    // Fractions between 0.1 and 1 on a grid of 2^i steps, for each decade i; the boundaries are those of a linear
    // grid evaluated from both ends with single roundings, whose bits files hold.
    std::array<float, 256> out{};
    index_t next = 128;
    for (int i = 0; i < 7; ++i) {
      const int steps = 1 << i;
      const float step = static_cast<float>(1.0f - 0.1f) / static_cast<float>(steps);
      const auto boundary = [&](int j) {
        return j < (steps + 1) / 2 ? std::fma(step, static_cast<float>(j), 0.1f)
                                   : std::fma(-step, static_cast<float>(steps - j), 1.0f);
      };
      constexpr float decades[7] = {1e-6f, 1e-5f, 1e-4f, 1e-3f, 1e-2f, 1e-1f, 1.0f};
      for (int j = 0; j < steps; ++j)
        out[static_cast<std::size_t>(next++)] = (boundary(j) + boundary(j + 1)) / 2.0f * decades[i];
    }
    out[255] = 1.0f;
    for (std::size_t p = 0; p < 127; ++p) out[126 - p] = -out[128 + p];
    return out;
  }();
  return map;
}

/// \brief Index of the entry of the sorted `map` nearest to `u`; an exact tie goes to the even index, a NaN to 0.
PESC_HOST_DEVICE inline std::uint8_t encode_dynamic(const float* map, float u) {
  if (!(u == u)) return 0;
  int low = 0;
  int high = 255;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (u > map[middle] ? low : high) = middle;
  }
  const float midpoint = (map[low] + map[high]) * 0.5f;
  if (u == midpoint) return static_cast<std::uint8_t>(low % 2 == 0 ? low : high);
  return static_cast<std::uint8_t>(u > midpoint ? high : low);
}

}  // namespace pesc
