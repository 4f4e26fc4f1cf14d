// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstring>

#include "pesc/core/buffer.hpp"
#include "pesc/quant/format.hpp"
#include "pesc/quant/fragment_layout.hpp"
#include "pesc/quant/layout.hpp"

namespace pesc {
namespace detail {

/// \brief Holds the description of a format where its type does not.
template <QuantFormat Format>
struct format_member {
  constexpr format_member() = default;
  constexpr explicit format_member(const format_info& info) {
    PESC_EXPECTS(info == Format::info(), "weights are stored as ", info.name, " in blocks of ", info.block,
                 ", this type is compiled for ", Format::info().name, " in blocks of ", Format::info().block,
                 Format::info().scales == scale_kind::double_quant ? " with double-quantised scales" : "");
  }
  static constexpr format_info format() { return Format::info(); }
};

template <>
struct format_member<any_format> {
  constexpr format_member() = default;
  constexpr explicit format_member(const format_info& info) : info_{info} {}
  constexpr const format_info& format() const { return info_; }

 private:
  format_info info_{};
};

}  // namespace detail

/// \brief Non-owning frozen weight [rows, cols] of a layer that computes x Wᵀ.
///
/// `codes` holds packed codes or numbers in the order of `Layout`. In `row_blocks` the scales lie in
/// `scales`, in `fragments` too but in the order of that layout; in `panels` the first level lies between the
/// codes and `scales` holds the second level only.
template <QuantFormat Format, class Layout, class Space = host_space>
struct quantized_view : detail::format_member<Format> {
  const std::uint8_t* codes = nullptr;
  scale_tensors<Space> scales{};
  index_t rows = 0;
  index_t cols = 0;

  constexpr quantized_view() = default;
  constexpr quantized_view(const format_info& info, const std::uint8_t* first,
                           const scale_tensors<Space>& tensors, index_t row_count, index_t col_count)
      : detail::format_member<Format>{info},
        codes{first},
        scales{tensors},
        rows{row_count},
        cols{col_count} {}

  constexpr bool empty() const { return rows == 0 || cols == 0; }
  constexpr auto layout() const {
    using type = std::conditional_t<std::is_same_v<Layout, fragments>, fragment_layout, panel_layout>;
    return type(this->format(), rows, cols);
  }
};

/// \brief Owns a frozen weight [rows, cols].
template <QuantFormat Format, class Layout, class Resource = host_resource>
class quantized_matrix : public detail::format_member<Format> {
 public:
  using memory_space = typename Resource::memory_space;

  quantized_matrix() = default;

  /// \brief All weights zero bits; for a caller who fills the tensors.
  /// \throws shape_error for negative or overflowing sizes, or a block that the format does not allow
  quantized_matrix(const format_info& info, index_t row_count, index_t col_count)
      : detail::format_member<Format>{info}, rows_{row_count}, cols_{col_count} {
    constexpr index_t limit = index_t{1} << 31;
    PESC_EXPECTS(row_count >= 0 && col_count >= 0 && row_count < limit && col_count < limit &&
                     (col_count == 0 || row_count <= (index_t{1} << 44) / col_count),
                 "weight of ", row_count, " x ", col_count, ": size out of range");
    PESC_EXPECTS(info.block >= 1, "weight blocks of ", info.block, ": must be positive");
    PESC_EXPECTS(!info.is_read_only() || (info.block == 32 && col_count % 32 == 0), info.name, " weight of ",
                 row_count, " x ", col_count, " in blocks of ", info.block,
                 ": rows must be whole blocks of 32 weights");
    const index_t n = row_count * col_count;
    const index_t blocks = info.blocks(n);
    if constexpr (std::is_same_v<Layout, panels>) {
      codes_ = buffer<std::uint8_t, Resource>(panel_layout(info, row_count, col_count).bytes());
    } else if constexpr (std::is_same_v<Layout, fragments>) {
      const fragment_layout layout(info, row_count, col_count);
      codes_ = buffer<std::uint8_t, Resource>(layout.bytes());
      const index_t scales = layout.scale_count();
      if (info.scales == scale_kind::plain) absmax_ = buffer<float, Resource>(scales);
      if (info.scales == scale_kind::double_quant) scale_codes_ = buffer<std::uint8_t, Resource>(scales);
    } else {
      codes_ = buffer<std::uint8_t, Resource>(info.code_bytes(n));
      if (info.scales == scale_kind::plain || info.scales == scale_kind::with_minimum)
        absmax_ = buffer<float, Resource>(blocks);
      if (info.scales == scale_kind::with_minimum) minimum_ = buffer<float, Resource>(blocks);
      if (info.scales == scale_kind::double_quant) scale_codes_ = buffer<std::uint8_t, Resource>(blocks);
    }
    if (info.scales == scale_kind::double_quant) {
      nested_absmax_ = buffer<float, Resource>(ceil_div(blocks, nested_block));
      map_ = buffer<float, Resource>(256);
    }
  }

  [[nodiscard]] index_t rows() const { return rows_; }
  [[nodiscard]] index_t cols() const { return cols_; }
  [[nodiscard]] bool empty() const { return rows_ == 0 || cols_ == 0; }

  [[nodiscard]] vector_view<std::uint8_t, memory_space> codes() { return codes_.view(); }
  [[nodiscard]] vector_view<float, memory_space> absmax() { return absmax_.view(); }
  [[nodiscard]] vector_view<float, memory_space> minimum() { return minimum_.view(); }
  [[nodiscard]] vector_view<std::uint8_t, memory_space> scale_codes() { return scale_codes_.view(); }
  [[nodiscard]] vector_view<float, memory_space> nested_absmax() { return nested_absmax_.view(); }
  [[nodiscard]] vector_view<float, memory_space> map() { return map_.view(); }
  [[nodiscard]] float& offset() { return offset_; }
  [[nodiscard]] vector_view<const std::uint8_t, memory_space> codes() const { return codes_.view(); }
  [[nodiscard]] vector_view<const float, memory_space> absmax() const { return absmax_.view(); }
  [[nodiscard]] vector_view<const float, memory_space> minimum() const { return minimum_.view(); }
  [[nodiscard]] vector_view<const std::uint8_t, memory_space> scale_codes() const {
    return scale_codes_.view();
  }
  [[nodiscard]] vector_view<const float, memory_space> nested_absmax() const { return nested_absmax_.view(); }
  [[nodiscard]] vector_view<const float, memory_space> map() const { return map_.view(); }
  [[nodiscard]] float offset() const { return offset_; }

  /// \brief The unused half of the last byte of an odd number of 4-bit codes, kept so that a save gives the
  /// same bytes.
  [[nodiscard]] std::uint8_t& tail_nibble() { return tail_nibble_; }
  [[nodiscard]] std::uint8_t tail_nibble() const { return tail_nibble_; }

  [[nodiscard]] quantized_view<Format, Layout, memory_space> view() const {
    return {
        this->format(),
        codes_.data(),
        {absmax_.data(), scale_codes_.data(), nested_absmax_.data(), map_.data(), offset_, minimum_.data()},
        rows_,
        cols_};
  }

  /// \brief Bytes of all tensors.
  [[nodiscard]] index_t bytes() const {
    return codes_.size() + scale_codes_.size() +
           4 * (absmax_.size() + minimum_.size() + nested_absmax_.size() + map_.size());
  }

 private:
  index_t rows_ = 0;
  index_t cols_ = 0;
  buffer<std::uint8_t, Resource> codes_;
  buffer<float, Resource> absmax_;
  buffer<float, Resource> minimum_;
  buffer<std::uint8_t, Resource> scale_codes_;
  buffer<float, Resource> nested_absmax_;
  buffer<float, Resource> map_;
  float offset_ = 0;
  std::uint8_t tail_nibble_ = 0;
};

namespace detail {

/// \brief Code of flattened weight `i` of a matrix in `row_blocks`.
inline std::uint8_t row_block_code(const std::uint8_t* codes, index_t i) {
  const std::uint8_t byte = codes[i / 2];
  return static_cast<std::uint8_t>(i % 2 == 0 ? byte >> 4 : byte & 0x0F);
}

inline index_t element_bytes(element_kind kind) { return bits_of(kind) / 8; }

/// \brief Calls `f(row, cell, i, block)` for each place where the panels store a scale of a block.
template <class F>
void for_each_panel_scale(const panel_layout& layout, F&& f) {
  const index_t last_block = (layout.rows * layout.cols - 1) / layout.block;
  for (index_t row = 0; row < layout.rows; ++row)
    for (index_t cell = 0; cell < layout.cell_count(); ++cell)
      for (index_t i = 0; i < layout.scales_per_row(); ++i) {
        // A cell that the padding cuts short stores its last scale again.
        const index_t row_last = (row * layout.cols + layout.cols - 1) / layout.block;
        f(row, cell, i, std::min({layout.first_block(row, cell) + i, row_last, last_block}));
      }
}

/// \brief Byte of the panels at which scale `i` of (`row`, `cell`) lies; minima count on behind the scales.
inline index_t panel_scale_byte(const panel_layout& layout, index_t row, index_t cell, index_t i) {
  const index_t width = layout.scales == scale_kind::double_quant ? 1 : 4;
  return layout.offset(row / 64, cell) + layout.code_bytes() + (i * 64 + row % 64) * width;
}

}  // namespace detail

/// \brief Rearranges a weight in the caller's memory for the CPU kernels, lossless to the bit for every shape
/// and block.
///
/// The tensors are those of a checkpoint: packed codes and their scales. They are only read, and may go
/// afterwards.
/// \throws shape_error when a tensor that the format needs is missing
template <QuantFormat Format>
[[nodiscard]] quantized_matrix<Format, panels> pack(const quantized_view<Format, row_blocks>& from) {
  const format_info& info = from.format();
  quantized_matrix<Format, panels> to(info, from.rows, from.cols);
  if (from.empty()) return to;
  const scale_tensors<>& s = from.scales;
  const bool nested = info.scales == scale_kind::double_quant;
  PESC_EXPECTS(from.codes != nullptr, "weight of ", from.rows, " x ", from.cols, " without codes");
  PESC_EXPECTS(info.scales != scale_kind::plain || s.absmax != nullptr, info.name,
               " weight without its scales (absmax)");
  const bool minima = info.scales == scale_kind::with_minimum;
  PESC_EXPECTS(!minima || (s.absmax != nullptr && s.minimum != nullptr), info.name,
               " weight without its scales and minima");
  PESC_EXPECTS(!nested || (s.codes != nullptr && s.nested_absmax != nullptr && s.map != nullptr), info.name,
               " weight with double-quantised scales needs their codes, nested_absmax and map");
  const panel_layout layout(info, from.rows, from.cols);
  const std::uint8_t* source = from.codes;
  std::uint8_t* out = to.codes().data;
  const std::uint8_t zero = info.element == element_kind::code4 ? info.encode(0.0f) : std::uint8_t{0};
  if (info.element == element_kind::code4)
    for (index_t panel = 0; panel < layout.panel_count(); ++panel)
      for (index_t cell = 0; cell < layout.cell_count(); ++cell)
        std::memset(out + layout.offset(panel, cell), zero * 0x11,
                    static_cast<std::size_t>(layout.code_bytes()));
  const index_t width = detail::element_bytes(info.element);
  for (index_t r = 0; r < from.rows; ++r)
    for (index_t k = 0; k < from.cols; ++k) {
      std::uint8_t* cell = out + layout.offset(r / 64, k / 64);
      if (info.element == element_kind::code4) {
        std::uint8_t& byte = cell[panel_layout::code_byte(r % 64, k % 64)];
        const int shift = panel_layout::code_shift(k);
        const int code = detail::row_block_code(source, r * from.cols + k);
        byte = static_cast<std::uint8_t>((byte & ~(0x0F << shift)) | code << shift);
      } else {
        std::memcpy(cell + ((k % 64) * 64 + r % 64) * width, source + (r * from.cols + k) * width,
                    static_cast<std::size_t>(width));
      }
    }
  if (info.scales != scale_kind::none)
    detail::for_each_panel_scale(layout, [&](index_t row, index_t cell, index_t i, index_t block) {
      std::uint8_t* place = out + detail::panel_scale_byte(layout, row, cell, i);
      if (nested)
        *place = s.codes[block];
      else
        std::memcpy(place, s.absmax + block, sizeof(float));
      if (minima)
        std::memcpy(out + detail::panel_scale_byte(layout, row, cell, i + layout.scales_per_row()),
                    s.minimum + block, sizeof(float));
    });
  std::copy_n(s.nested_absmax, to.nested_absmax().size, to.nested_absmax().begin());
  std::copy_n(s.map, to.map().size, to.map().begin());
  to.offset() = s.offset;
  const index_t n = from.rows * from.cols;
  if (info.element == element_kind::code4 && n % 2 == 1)
    to.tail_nibble() = static_cast<std::uint8_t>(source[n / 2] & 0x0F);
  return to;
}

/// \brief The same for a weight that owns its tensors.
template <QuantFormat Format>
[[nodiscard]] quantized_matrix<Format, panels> pack(const quantized_matrix<Format, row_blocks>& from) {
  return pack(from.view());
}

/// \brief Gives back exactly the bytes that `pack` was given.
template <QuantFormat Format>
[[nodiscard]] quantized_matrix<Format, row_blocks> unpack(const quantized_matrix<Format, panels>& from) {
  const format_info& info = from.format();
  quantized_matrix<Format, row_blocks> to(info, from.rows(), from.cols());
  if (from.empty()) return to;
  const panel_layout layout(info, from.rows(), from.cols());
  const std::uint8_t* source = from.codes().data;
  std::uint8_t* out = to.codes().data;
  const index_t width = detail::element_bytes(info.element);
  for (index_t r = 0; r < from.rows(); ++r)
    for (index_t k = 0; k < from.cols(); ++k) {
      const std::uint8_t* cell = source + layout.offset(r / 64, k / 64);
      const index_t i = r * from.cols() + k;
      if (info.element == element_kind::code4) {
        const int code = cell[panel_layout::code_byte(r % 64, k % 64)] >> panel_layout::code_shift(k) & 0x0F;
        out[i / 2] = static_cast<std::uint8_t>(out[i / 2] | code << (i % 2 == 0 ? 4 : 0));
      } else {
        std::memcpy(out + i * width, cell + ((k % 64) * 64 + r % 64) * width,
                    static_cast<std::size_t>(width));
      }
    }
  if (info.scales != scale_kind::none)
    detail::for_each_panel_scale(layout, [&](index_t row, index_t cell, index_t i, index_t block) {
      const std::uint8_t* place = source + detail::panel_scale_byte(layout, row, cell, i);
      if (info.scales == scale_kind::double_quant)
        to.scale_codes()[block] = *place;
      else
        std::memcpy(&to.absmax()[block], place, sizeof(float));
      if (info.scales == scale_kind::with_minimum)
        std::memcpy(&to.minimum()[block],
                    source + detail::panel_scale_byte(layout, row, cell, i + layout.scales_per_row()),
                    sizeof(float));
    });
  std::copy(from.nested_absmax().begin(), from.nested_absmax().end(), to.nested_absmax().begin());
  std::copy(from.map().begin(), from.map().end(), to.map().begin());
  to.offset() = from.offset();
  const index_t n = from.rows() * from.cols();
  if (info.element == element_kind::code4 && n % 2 == 1)
    out[n / 2] = static_cast<std::uint8_t>(out[n / 2] | (from.tail_nibble() & 0x0F));
  return to;
}

}  // namespace pesc
