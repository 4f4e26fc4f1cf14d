// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <type_traits>

#include "pesc/core/types.hpp"
#include "pesc/core/views.hpp"
#include "pesc/quant/format.hpp"

namespace pesc {

/// \brief Storage order of checkpoints: codes of the flattened matrix, first weight in the high nibble; scales apart.
struct row_blocks {};

/// \brief Storage order of the CPU kernels, described by `panel_layout`.
struct panels {};

/// \brief Storage order of the CUDA kernels, described by `fragment_layout`.
struct fragments;

/// \brief The storage order that the kernels of a memory space read.
template <class Space>
using kernel_layout = std::conditional_t<std::is_same_v<Space, device_space>, fragments, panels>;

/// \brief Byte arithmetic of the `panels` layout.
///
/// The matrix is cut into panels of 64 rows and these into cells of 64 columns. Panels follow one another, a panel's
/// cells in the order of columns, so a product reads one sequential stream. Rows and columns are padded up to 64.
///
/// 4-bit cell: for each group g of 8 columns and vector v of 16 rows, 64 bytes; a 32-bit lane is a row, and its
/// nibble n (bits 4n to 4n + 3) is the code of column 8 g + n. Then the scales: `scales_per_row` runs of 64 floats
/// (plain) or 64 bytes (double-quantised), one entry a row; where scales come with a minimum, as many runs of these.
/// Cell of numbers or 8-bit codes: [64 columns][64 rows], and the same scales.
///
/// Where blocks begin and end on cell borders, a row of a cell has one scale (two for blocks of 32) and a larger
/// block repeats its scale. Otherwise the matrix `straddles`: a row of a cell stores the two or three scales that touch
/// it in order, and `boundary` tells where the next one begins.
struct panel_layout {
  static constexpr index_t panel_rows = 64;
  static constexpr index_t cell_cols = 64;

  element_kind element = element_kind::f32;
  scale_kind scales = scale_kind::none;
  index_t block = 1;
  index_t rows = 0;
  index_t cols = 0;

  constexpr panel_layout() = default;
  PESC_HOST_DEVICE constexpr panel_layout(const format_info& format, index_t row_count, index_t col_count)
      : element{format.element},
        scales{format.scales},
        block{format.block},
        rows{row_count},
        cols{col_count} {}

  PESC_HOST_DEVICE constexpr index_t panel_count() const { return ceil_div(rows, panel_rows); }
  PESC_HOST_DEVICE constexpr index_t cell_count() const {
    return ceil_div(cols, cell_cols);
  }  ///< in one panel

  /// \brief True if some row of some cell needs more scales than its place at a border alone would give.
  PESC_HOST_DEVICE constexpr bool straddles() const {
    return scales != scale_kind::none && rows > 1 && cols % (block < cell_cols ? block : cell_cols) != 0;
  }

  PESC_HOST_DEVICE constexpr index_t scales_per_row() const {
    if (scales == scale_kind::none) return 0;
    const index_t whole = block < cell_cols ? cell_cols / block : 1;
    return straddles() ? whole + 1 : whole;
  }

  PESC_HOST_DEVICE constexpr index_t code_bytes() const {
    return panel_rows * cell_cols * bits_of(element) / 8;
  }
  PESC_HOST_DEVICE constexpr index_t scale_bytes() const {
    const index_t runs = scales == scale_kind::with_minimum ? 2 * scales_per_row() : scales_per_row();
    return runs * panel_rows * (scales == scale_kind::double_quant ? 1 : 4);
  }
  PESC_HOST_DEVICE constexpr index_t cell_bytes() const { return code_bytes() + scale_bytes(); }
  PESC_HOST_DEVICE constexpr index_t panel_bytes() const { return cell_count() * cell_bytes(); }
  PESC_HOST_DEVICE constexpr index_t bytes() const { return panel_count() * panel_bytes(); }

  /// \brief First byte of cell `cell` of panel `panel`; its scales begin `code_bytes()` further on.
  PESC_HOST_DEVICE constexpr index_t offset(index_t panel, index_t cell) const {
    return panel * panel_bytes() + cell * cell_bytes();
  }

  /// \brief Index of the block that holds the first weight of `cell` in `row`.
  PESC_HOST_DEVICE constexpr index_t first_block(index_t row, index_t cell) const {
    return (row * cols + cell * cell_cols) / block;
  }

  /// \brief Column within the cell at which scale number `i` (from 1) of this row begins; 64 or more: not in this cell.
  PESC_HOST_DEVICE constexpr index_t boundary(index_t row, index_t cell, index_t i) const {
    return (first_block(row, cell) + i) * block - (row * cols + cell * cell_cols);
  }

  /// \brief Byte within the cell of the code of (`r`, `k`), both 0 to 63.
  PESC_HOST_DEVICE static constexpr index_t code_byte(index_t r, index_t k) {
    return ((k / 8) * 4 + r / 16) * 64 + (r % 16) * 4 + (k % 8) / 2;
  }

  /// \brief Bit position within that byte.
  PESC_HOST_DEVICE static constexpr int code_shift(index_t k) { return static_cast<int>(k % 2) * 4; }
};

}  // namespace pesc
