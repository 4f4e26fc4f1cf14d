// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>

#include "pesc/core/array.hpp"
#include "pesc/core/extent.hpp"
#include "pesc/core/types.hpp"
#include "pesc/quant/scales.hpp"

namespace pesc {

/// \brief What one stored element is: a 4-bit code, a signed 8-bit one whose level is itself, or a number.
enum class element_kind : std::uint8_t { code4, f32, bf16, f16, code8 };

/// \brief Bits of one stored element.
PESC_HOST_DEVICE constexpr int bits_of(element_kind kind) {
  return kind == element_kind::code4   ? 4
         : kind == element_kind::code8 ? 8
         : kind == element_kind::f32   ? 32
                                       : 16;
}

/// \brief A storage format as run-time numbers: all that kernels need to know of it.
///
/// A weight is `levels[code] * scale of its block`, plus the block's minimum where scales come with one. One kernel serves every 4-bit format, since the levels are data.
struct format_info {
  element_kind element = element_kind::f32;
  scale_kind scales = scale_kind::none;
  int block = 1;                    ///< weights per scale, counted along the flattened matrix
  array<float, 16> levels{};        ///< value of each code before the scale
  array<std::uint8_t, 16> order{};  ///< codes by ascending level
  array<float, 15> thresholds{};    ///< midpoints between neighbours in that order
  const char* name = "float";

  friend constexpr bool operator==(const format_info& a, const format_info& b) {
    return a.element == b.element && a.scales == b.scales && a.block == b.block && a.levels == b.levels;
  }

  /// \brief Code of the level nearest to `u`; a tie goes to the smaller level.
  PESC_HOST_DEVICE constexpr std::uint8_t encode(float u) const {
    int rank = 0;
    while (rank < 15 && u > thresholds[static_cast<std::size_t>(rank)]) ++rank;
    return order[static_cast<std::size_t>(rank)];
  }

  /// \brief Number of scales of `elements` weights.
  PESC_HOST_DEVICE constexpr index_t blocks(index_t elements) const {
    return scales == scale_kind::none ? 0 : ceil_div(elements, block);
  }

  /// \brief Whether such weights come from files only: `quantize` knows levels from -1 to 1 and scales without minimum.
  PESC_HOST_DEVICE constexpr bool is_read_only() const {
    return element == element_kind::code8 || scales == scale_kind::with_minimum ||
           (element == element_kind::code4 && levels[order[15]] > 1.0f);
  }

  /// \brief Bytes of `elements` packed codes or numbers.
  PESC_HOST_DEVICE constexpr index_t code_bytes(index_t elements) const {
    return ceil_div(elements * bits_of(element), 8);
  }
};

/// \brief Describes a 4-bit format by its levels; order and thresholds follow.
constexpr format_info make_code4_info(const array<float, 16>& levels, int block, scale_kind scales,
                                      const char* name) {
  format_info info;
  info.element = element_kind::code4;
  info.scales = scales;
  info.block = block;
  info.levels = levels;
  info.name = name;
  for (std::uint8_t code = 0; code < 16; ++code) {
    std::size_t at = code;
    for (; at > 0 && levels[info.order[at - 1]] > levels[code]; --at) info.order[at] = info.order[at - 1];
    info.order[at] = code;
  }
  for (std::size_t i = 0; i < 15; ++i)
    info.thresholds[i] = 0.5f * (levels[info.order[i]] + levels[info.order[i + 1]]);
  return info;
}

/// \brief The escape from compile-time formats: the format of a matrix is what its file says.
struct any_format {};

/// \brief Storage of frozen weights: either a type with a constant description, or `any_format`.
template <class F>
concept QuantFormat = std::same_as<F, any_format> || requires {
  { F::info() } -> std::same_as<format_info>;
  { F::bits } -> std::convertible_to<int>;
  { F::block } -> std::convertible_to<int>;
  requires ScaleCodec<typename F::scales>;
};

}  // namespace pesc
