// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/quant/layout.hpp"

namespace pesc {

struct fragments {};

/// \brief Byte arithmetic of the `fragments` layout.
///
/// The matrix is cut into tiles of 16 rows and these into cells of 64 columns; columns are padded up to whole
/// cells, rows to whole groups of four tiles. The bytes of a cell are its record: what the 32 lanes of a warp
/// hold as the left operand of four `mma.m16n8k16`, so that a lane loads its registers with 16-byte accesses
/// and decodes them without talking to others. With lane = 4 g + t, register a0 to a3 of step s hold row g +
/// 8 (a % 2) and the pair of columns `32 (s / 2) + 8 t + 4 (s % 2) + 2 (a / 2)`. The permutation of columns
/// makes the right operand of two steps 16 bytes that follow one another in a row of activations.
///
/// 4-bit record: 512 bytes, [lane][step][register], a byte being a pair of codes with the even column in its
/// low nibble. Record of numbers: [step][16-byte piece][lane], a piece being two (float) or four registers.
///
/// Order of records: [group][cell][tile of the group].
///
/// Where every row is made of whole cells and these of whole blocks, or the blocks of whole cells, scales lie
/// in an array of their own as [tile][256 columns][row % 8][row / 8][unit], a unit being a cell (half of it
/// for blocks of 32); a larger block repeats its scale. All other scales keep the order of blocks.
struct fragment_layout {
  static constexpr index_t tile_rows = 16;
  static constexpr index_t cell_cols = 64;
  static constexpr index_t group_tiles = 4;
  static constexpr index_t run_cells = 4;  ///< cells whose scales lie together

  element_kind element = element_kind::f32;
  scale_kind scales = scale_kind::none;
  index_t block = 1;
  index_t rows = 0;
  index_t cols = 0;

  constexpr fragment_layout() = default;
  PESC_HOST_DEVICE constexpr fragment_layout(const format_info& format, index_t row_count, index_t col_count)
      : element{format.element},
        scales{format.scales},
        block{format.block},
        rows{row_count},
        cols{col_count} {}

  PESC_HOST_DEVICE constexpr index_t group_count() const { return ceil_div(rows, tile_rows * group_tiles); }
  PESC_HOST_DEVICE constexpr index_t tile_count() const { return group_count() * group_tiles; }
  PESC_HOST_DEVICE constexpr index_t cell_count() const {
    return ceil_div(cols, cell_cols);
  }  ///< of one tile
  PESC_HOST_DEVICE constexpr index_t run_count() const {
    return ceil_div(cell_count(), run_cells);
  }  ///< of one tile

  PESC_HOST_DEVICE constexpr index_t record_bytes() const {
    return tile_rows * cell_cols * bits_of(element) / 8;
  }
  PESC_HOST_DEVICE constexpr index_t bytes() const { return tile_count() * cell_count() * record_bytes(); }

  /// \brief First byte of the record of (`tile`, `cell`).
  PESC_HOST_DEVICE constexpr index_t offset(index_t tile, index_t cell) const {
    return ((tile / group_tiles * cell_count() + cell) * group_tiles + tile % group_tiles) * record_bytes();
  }

  /// \brief Lane that holds row `r` (0 to 15) and column `k` (0 to 63) of a record.
  PESC_HOST_DEVICE static constexpr int lane(index_t r, index_t k) {
    return static_cast<int>(r % 8 * 4 + k % 32 / 8);
  }
  /// \brief Step of the product that uses column `k`.
  PESC_HOST_DEVICE static constexpr int step(index_t k) { return static_cast<int>(k / 32 * 2 + k % 8 / 4); }
  /// \brief Register of that step, 0 to 3.
  PESC_HOST_DEVICE static constexpr int fragment_register(index_t r, index_t k) {
    return static_cast<int>(r / 8 + k % 4 / 2 * 2);
  }

  /// \brief Byte within a 4-bit record of the code of (`r`, `k`).
  PESC_HOST_DEVICE static constexpr index_t code_byte(index_t r, index_t k) {
    return lane(r, k) * 16 + step(k) * 4 + fragment_register(r, k);
  }
  /// \brief Bit position within that byte.
  PESC_HOST_DEVICE static constexpr int code_shift(index_t k) { return static_cast<int>(k % 2) * 4; }

  /// \brief Position within a record of numbers of (`r`, `k`), in elements.
  PESC_HOST_DEVICE constexpr index_t number(index_t r, index_t k) const {
    const index_t piece = 128 / bits_of(element);
    const index_t i = fragment_register(r, k) * 2 + k % 2;
    return ((step(k) * (8 / piece) + i / piece) * 32 + lane(r, k)) * piece + i % piece;
  }

  /// \brief True if scales are stored by cells, false if they are in the order of blocks.
  PESC_HOST_DEVICE constexpr bool scales_by_cell() const {
    return scales != scale_kind::none && cols % cell_cols == 0 && (block == 32 || block % cell_cols == 0);
  }
  PESC_HOST_DEVICE constexpr index_t units_per_cell() const { return block < cell_cols ? 2 : 1; }
  PESC_HOST_DEVICE constexpr index_t unit_cols() const { return cell_cols / units_per_cell(); }

  /// \brief Entries of the array of scales.
  PESC_HOST_DEVICE constexpr index_t scale_count() const {
    if (scales == scale_kind::none) return 0;
    if (!scales_by_cell()) return ceil_div(rows * cols, block);
    return tile_count() * run_count() * tile_rows * run_cells * units_per_cell();
  }

  /// \brief Entry of unit number `unit` of `row`, where scales are stored by cells.
  PESC_HOST_DEVICE constexpr index_t scale_index(index_t row, index_t unit) const {
    const index_t run = run_cells * units_per_cell();
    const index_t place = ((row / tile_rows * run_count() + unit / run) * 8 + row % 8) * 2 + row / 8 % 2;
    return place * run + unit % run;
  }

  /// \brief Entry of the scale of (`row`, `k`).
  PESC_HOST_DEVICE constexpr index_t scale_of(index_t row, index_t k) const {
    return scales_by_cell() ? scale_index(row, k / unit_cols()) : block_of(row, k);
  }

  /// \brief Index of the block that holds (`row`, `k`).
  PESC_HOST_DEVICE constexpr index_t block_of(index_t row, index_t k) const {
    return (row * cols + k) / block;
  }
};

}  // namespace pesc
