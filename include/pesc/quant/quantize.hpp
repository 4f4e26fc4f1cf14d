// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "pesc/quant/quantized_matrix.hpp"

namespace pesc {
namespace detail {

/// \brief Smallest divisor of a block, the portable rule's guard against a zero block.
inline constexpr float least_absmax = 1e-38f;

/// \brief What a block is divided by: full blocks multiply by the reciprocal, a partial last block divides.
struct block_divisor {
  float stored;  ///< the scale that is written
  float divisor;
  bool full;

  block_divisor(float absmax, bool is_full)
      : stored{is_full ? absmax : std::max(absmax, least_absmax)},
        divisor{std::max(absmax, least_absmax)},
        full{is_full} {
    if (full) divisor = 1.0f / divisor;
  }
  float operator()(float x) const { return full ? x * divisor : x / divisor; }
};

}  // namespace detail

/// \brief Quantises `n` numbers to codes of a sorted map of 256 values in blocks that share a scale.
///
/// Dettmers et al., "8-bit optimizers via block-wise quantization" (2022): the code is the entry nearest to
/// (value - offset) / absmax. Second-level scales of double quantisation use blocks of 256.
/// \param absmax  one per block, largest |value - offset|
inline void quantize_to_map(const float* values, index_t n, index_t block, float offset, const float* map,
                            float* absmax, std::uint8_t* codes) {
  for (index_t begin = 0; begin < n; begin += block) {
    const index_t end = std::min<index_t>(begin + block, n);
    float largest = 0.0f;
    for (index_t i = begin; i < end; ++i) largest = std::max(largest, std::fabs(values[i] - offset));
    const detail::block_divisor scaled(largest, end - begin == block);
    absmax[begin / block] = scaled.stored;
    for (index_t i = begin; i < end; ++i) codes[i] = encode_dynamic(map, scaled(values[i] - offset));
  }
}

/// \brief Mean of the scales, the offset of double quantisation.
inline float mean_scale(const float* values, index_t n) {
  double sum = 0.0;
  for (index_t i = 0; i < n; ++i) sum += static_cast<double>(values[i]);
  return n == 0 ? 0.0f : static_cast<float>(sum / static_cast<double>(n));
}

/// \brief Quantises one block-aligned range of a flattened weight: scales and codes of blocks `first` to `last` - 1.
///
/// QLoRA section 3; the rounding is the portable rule of the reference library: u = x * (1 / absmax), a partial last
/// block divides, a tie goes to the smaller level. An all-zero block has scale 0 and codes of zero.
/// \throws numeric_error for NaN or infinite weights, with the position of the first
template <Scalar T>
void quantize_blocks(const format_info& info, const T* weights, index_t n, index_t first, index_t last,
                     std::uint8_t* codes, float* absmax) {
  for (index_t b = first; b < last; ++b) {
    const index_t begin = b * info.block;
    const index_t end = std::min<index_t>(begin + info.block, n);
    float largest = 0.0f;
    for (index_t i = begin; i < end; ++i) {
      const float x = std::fabs(to_float(weights[i]));
      if (!(x <= 3.402823466e38f)) [[unlikely]]
        detail::raise<numeric_error>(
            detail::concat("weight ", i, " is not finite and cannot be quantised to ", info.name));
      largest = std::max(largest, x);
    }
    const detail::block_divisor scaled(largest, end - begin == info.block);
    absmax[b] = scaled.stored;
    for (index_t i = begin; i < end; ++i) {
      const std::uint8_t code = info.encode(scaled(to_float(weights[i])));
      std::uint8_t& byte = codes[i / 2];
      byte = i % 2 == 0 ? static_cast<std::uint8_t>(code << 4 | info.encode(0.0f))
                        : static_cast<std::uint8_t>((byte & 0xF0) | code);
    }
  }
}

/// \brief Quantises a weight [rows, cols] into the order of checkpoints.
///
/// \param offset  the offset of double quantisation; by default the mean of the scales
/// \throws numeric_error for NaN or infinite weights, with the position of the first
template <QuantFormat Format, Scalar T>
[[nodiscard]] quantized_matrix<Format, row_blocks> quantize(const format_info& info,
                                                            matrix_view<const T> weight,
                                                            const float* offset = nullptr) {
  PESC_EXPECTS(!info.is_read_only(), info.name, ": weights of this format come from files only");
  quantized_matrix<Format, row_blocks> out(info, weight.rows, weight.cols);
  const index_t n = weight.size();
  buffer<T> flat;
  const T* source = weight.data;
  if (weight.stride != weight.cols) {
    flat = buffer<T>(n);
    for (index_t r = 0; r < weight.rows; ++r)
      std::copy_n(weight.row(r), weight.cols, flat.data() + r * weight.cols);
    source = flat.data();
  }
  if (info.element != element_kind::code4) {
    for (index_t i = 0; i < n; ++i) {
      const float x = to_float(source[i]);
      std::uint8_t* place = out.codes().data + i * detail::element_bytes(info.element);
      if (info.element == element_kind::f32) std::memcpy(place, &x, 4);
      const std::uint16_t half = info.element == element_kind::bf16 ? to_bf16(x).bits : to_f16(x).bits;
      if (info.element != element_kind::f32) std::memcpy(place, &half, 2);
    }
    return out;
  }
  const index_t blocks = info.blocks(n);
  if (info.scales == scale_kind::plain) {
    quantize_blocks(info, source, n, 0, blocks, out.codes().data, out.absmax().data);
    return out;
  }
  buffer<float> absmax(blocks);
  quantize_blocks(info, source, n, 0, blocks, out.codes().data, absmax.data());
  std::copy(dynamic_map().begin(), dynamic_map().end(), out.map().begin());
  out.offset() = offset != nullptr ? *offset : mean_scale(absmax.data(), blocks);
  quantize_to_map(absmax.data(), blocks, nested_block, out.offset(), out.map().data, out.nested_absmax().data,
                  out.scale_codes().data);
  return out;
}

/// \brief Quantises to a format that is known at compile time.
template <QuantFormat Format, Scalar T>
  requires(!std::same_as<Format, any_format>)
[[nodiscard]] quantized_matrix<Format, row_blocks> quantize(matrix_view<const T> weight) {
  return quantize<Format>(Format::info(), weight);
}

/// \brief Value of flattened weight `i`: one multiplication in float, and one addition where there is a minimum.
template <QuantFormat Format>
[[nodiscard]] float dequantized(const quantized_view<Format, row_blocks>& weight, index_t i) {
  const format_info& info = weight.format();
  std::uint16_t half = 0;
  float value = 0.0f;
  switch (info.element) {
    case element_kind::code4:
      value = info.levels[detail::row_block_code(weight.codes, i)];
      break;
    case element_kind::code8:
      value = static_cast<float>(static_cast<std::int8_t>(weight.codes[i]));
      break;
    case element_kind::f32:
      std::memcpy(&value, weight.codes + 4 * i, 4);
      return value;
    case element_kind::bf16:
      std::memcpy(&half, weight.codes + 2 * i, 2);
      return to_float(bf16{half});
    case element_kind::f16:
      std::memcpy(&half, weight.codes + 2 * i, 2);
      return to_float(f16{half});
  }
  const float scale = decode_scale(info.scales, weight.scales, i / info.block);
  return info.scales == scale_kind::with_minimum
             ? mul_then_add(value, scale, weight.scales.minimum[i / info.block])
             : value * scale;
}

/// \brief Writes all weights as `T`, rounded once from float, or first to `Via` and then to `T`.
///
/// Frameworks that load in half precision and compute in bfloat16 round twice; `Via` reproduces their bits.
template <Scalar T, Scalar Via = float, QuantFormat Format>
void dequantize(const quantized_view<Format, row_blocks>& weight, matrix_view<T> out) {
  PESC_EXPECTS(out.rows == weight.rows && out.cols == weight.cols, "dequantise ", weight.rows, " x ",
               weight.cols, " into a matrix of ", out.rows, " x ", out.cols);
  for (index_t r = 0; r < weight.rows; ++r)
    for (index_t k = 0; k < weight.cols; ++k)
      out(r, k) = from_float<T>(to_float(from_float<Via>(dequantized(weight, r * weight.cols + k))));
}

}  // namespace pesc
