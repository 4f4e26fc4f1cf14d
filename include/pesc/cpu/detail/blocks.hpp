// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "pesc/core/views.hpp"
#include "pesc/cpu/isa.hpp"

namespace pesc::cpu {
inline namespace PESC_CPU_ABI {
namespace detail {

/// \brief `rows` cut into blocks of nearly equal size, none larger than `most`.
///
/// Equal blocks: a last block of one row would cost as much time as a full one.
struct equal_blocks {
  index_t rows = 0;
  index_t most = 1;

  constexpr index_t count() const { return ceil_div(rows, most); }
  constexpr index_t begin(index_t b) const { return b * rows / count(); }
  constexpr index_t size(index_t b) const { return begin(b + 1) - begin(b); }
};

/// \brief Ways to form a product with a frozen weight.
enum class frozen_path {
  tile,              ///< decode cells to a tile of floats, then the dense microkernel
  fused,             ///< decode codes in registers, once for every few tokens
  fused_transposed,  ///< the same for x W
  tile_bf16,
  fused_bf16
};

/// \brief How the tokens of one product are packed and multiplied.
struct frozen_plan {
  frozen_path path = frozen_path::tile;
  bool transposed = false;
  bool round_bf16 = false;
  equal_blocks blocks{};
};

/// \brief Result of a product with a frozen weight.
struct frozen_result {
  float* data = nullptr;
  index_t stride = 0;
  bool accumulate = false;
};

/// \brief Numbers of one dense product tile: y[rows, cols] (+)= alpha op(a) op(b) over k.
struct dense_tile {
  const float* a = nullptr;  ///< [rows][k], or [k][rows] where transposed
  index_t a_stride = 0;
  bool a_transposed = false;
  const float* b = nullptr;  ///< [k][cols], or [cols][k] where transposed
  index_t b_stride = 0;
  bool b_transposed = false;
  float* y = nullptr;
  index_t y_stride = 0;
  index_t rows = 0, cols = 0, k = 0;
  float alpha = 1;
  bool accumulate = false;
};

/// \brief How a dense product is cut into tiles; depends on sizes alone.
struct tile_grid {
  equal_blocks rows;
  index_t cols = 0;
  index_t tile_cols = 1;

  tile_grid(index_t row_count, index_t col_count, index_t most_rows, index_t most_cols)
      : rows{row_count, most_rows}, cols{col_count}, tile_cols{most_cols} {
    // Too few tiles would leave threads idle; smaller ones cost a little more packing.
    constexpr index_t enough = 8;
    if (count() < enough) rows.most = std::max<index_t>(most_rows / 4, 1);
    if (count() < enough) tile_cols = std::max<index_t>(most_cols / 4, 1);
  }

  index_t tiles_in_row() const { return ceil_div(cols, tile_cols); }
  index_t count() const { return rows.count() * tiles_in_row(); }

  /// \brief Tile `index` of the product `whole`.
  dense_tile tile(dense_tile whole, index_t index) const {
    const index_t row = rows.begin(index / tiles_in_row());
    const index_t col = index % tiles_in_row() * tile_cols;
    whole.rows = rows.size(index / tiles_in_row());
    whole.cols = std::min(tile_cols, cols - col);
    // Operands of no depth may be null.
    whole.a = pesc::detail::advance(whole.a, whole.a_transposed ? row : row * whole.a_stride);
    whole.b = pesc::detail::advance(whole.b, whole.b_transposed ? col * whole.b_stride : col);
    whole.y += row * whole.y_stride + col;
    return whole;
  }
};

}  // namespace detail
}  // namespace PESC_CPU_ABI
}  // namespace pesc::cpu
