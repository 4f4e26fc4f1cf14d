// SPDX-License-Identifier: Apache-2.0
// Included once per instruction set, inside namespace `pesc::cpu::detail::<isa>` and its target region, after
// matmul.inl and after `code_table` with `decode_rows`, `decode_cols` and `decode_nested` are defined there.
//
// Decodes cells of a frozen weight into tiles of scaled floats that the dense microkernel multiplies:
// [k][rows] for x W^T, [row][k] for x W. A weight is level * scale, one multiplication, on every path that
// writes weights out.

/// \brief How many scales a row of a cell has.
enum scales_of_cell : int {
  whole_cell = 1,
  halves = 2,
  straddling = 3,  ///< up to three, with boundaries between them
  halves_with_minimum = 4
};

/// \brief Scales of one cell: up to three for each row, and the columns at which the second and third begin.
///
/// Also keeps the second-level scales of its rows while a product walks along a panel.
struct cell_scales {
  const float* scale[3] = {};    ///< [64] each
  const float* minimum[2] = {};  ///< of the same rows and halves, for `halves_with_minimum`
  index_t count = whole_cell;
  alignas(64) float boundary[2][64];
  alignas(64) float decoded[3][64];
  alignas(64) float nested[64];
  index_t panel = -1;
  index_t nested_begin = 0;  ///< first cell that `nested` holds for
  index_t nested_end = 0;
};

/// \brief Finds the second-level scales of the rows of a cell, and up to which cell they stay the same.
inline void find_nested(const frozen_weight& w, index_t panel, index_t cell, cell_scales& out) {
  const panel_layout& layout = w.layout;
  const index_t last_row = std::min(layout.rows, panel * 64 + 64) - 1;
  out.panel = panel;
  out.nested_begin = cell;
  out.nested_end = layout.cell_count();
  const index_t unit = layout.block * nested_block;
  for (index_t r = 0; r < 64; ++r) {
    const index_t row_begin = std::min(panel * 64 + r, last_row) * layout.cols;
    const index_t index = w.nested_index(row_begin + cell * 64);
    out.nested[r] = w.nested_absmax[index];
    const index_t next = (index + 1) * unit - row_begin;
    if (next < out.nested_end * 64) out.nested_end = std::max(cell + 1, next / 64);
  }
}

/// \brief Scales of any cell, one by one; rows that pad the matrix get 0.
inline void read_scales_singly(const frozen_weight& w, index_t panel, index_t cell, cell_scales& out) {
  const panel_layout& layout = w.layout;
  const std::uint8_t* stored = w.bytes + layout.offset(panel, cell) + layout.code_bytes();
  const index_t per_row = layout.scales_per_row();
  const index_t rows = std::min<index_t>(64, layout.rows - panel * 64);
  for (index_t r = 0; r < 64; ++r) {
    const index_t row = panel * 64 + std::min(r, rows - 1);
    const index_t first = layout.first_block(row, cell);
    const index_t last = ((row + 1) * layout.cols - 1) / layout.block;
    for (index_t i = 0; i < per_row; ++i) {
      float value = 0.0f;
      if (layout.scales == scale_kind::plain)
        std::memcpy(&value, stored + (i * 64 + r) * 4, 4);
      else
        value = pesc::mul_then_add(w.map[stored[i * 64 + r]],
                                   w.nested_absmax[std::min(first + i, last) / nested_block], w.offset);
      out.decoded[i][r] = r < rows ? value : 0.0f;
    }
    if (out.count != straddling) continue;
    for (index_t i = 0; i < 2; ++i)
      out.boundary[i][r] = i + 1 < per_row ? static_cast<float>(layout.boundary(row, cell, i + 1)) : 64.0f;
    if (per_row < 3) out.decoded[2][r] = 0.0f;
  }
  for (index_t i = 0; i < 3; ++i) out.scale[i] = out.decoded[i];
}

/// \brief Reads the scales of a cell; call it for the cells of a panel in order.
inline void read_scales(const frozen_weight& w, index_t panel, index_t cell, cell_scales& out) {
  const panel_layout& layout = w.layout;
  const std::uint8_t* stored = w.bytes + layout.offset(panel, cell) + layout.code_bytes();
  out.count = layout.straddles()                          ? static_cast<index_t>(straddling)
              : layout.scales == scale_kind::with_minimum ? static_cast<index_t>(halves_with_minimum)
                                                          : layout.scales_per_row();
  if (out.count == halves_with_minimum) {
    const auto* runs = reinterpret_cast<const float*>(stored);
    for (index_t i = 0; i < 2; ++i) {
      out.scale[i] = runs + i * 64;
      out.minimum[i] = runs + (2 + i) * 64;
    }
  } else if (out.count < straddling && layout.scales == scale_kind::plain) {
    for (index_t i = 0; i < out.count; ++i) out.scale[i] = reinterpret_cast<const float*>(stored) + i * 64;
  } else if (out.count == 1) {
    if (out.panel != panel || cell < out.nested_begin || cell >= out.nested_end)
      find_nested(w, panel, cell, out);
    decode_nested(stored, w, out.nested, out.decoded[0]);
    out.scale[0] = out.decoded[0];
  } else {
    read_scales_singly(w, panel, cell, out);
  }
}

/// \brief The scales of column `k` for the rows from `row` on; `Count` is that of the cell.
template <int Count>
[[gnu::always_inline]] inline vec row_scales(const cell_scales& s, index_t row, index_t k) {
  if constexpr (Count != straddling) return simd::load(s.scale[Count == whole_cell ? 0 : k / 32] + row);
  const vec column = simd::set(static_cast<float>(k));
  const vec later = simd::select(simd::less(column, simd::load(s.boundary[1] + row)),
                                 simd::load(s.scale[1] + row), simd::load(s.scale[2] + row));
  return simd::select(simd::less(column, simd::load(s.boundary[0] + row)), simd::load(s.scale[0] + row),
                      later);
}

/// \brief The scales of row `row` for the columns from `k` on.
template <int Count>
[[gnu::always_inline]] inline vec col_scales(const cell_scales& s, index_t row, index_t k) {
  if constexpr (Count != straddling) return simd::set(s.scale[Count == whole_cell ? 0 : k / 32][row]);
  const vec column = simd::add(simd::iota(), simd::set(static_cast<float>(k)));
  const vec later = simd::select(simd::less(column, simd::set(s.boundary[1][row])),
                                 simd::set(s.scale[1][row]), simd::set(s.scale[2][row]));
  return simd::select(simd::less(column, simd::set(s.boundary[0][row])), simd::set(s.scale[0][row]), later);
}

/// \brief Levels of column `k` for the rows from `row` on as weights.
template <int Count>
[[gnu::always_inline]] inline vec scale_rows(vec levels, const cell_scales& s, index_t row, index_t k) {
  const vec scale = row_scales<Count>(s, row, k);
  if constexpr (Count == halves_with_minimum)
    return simd::mul_then_add(levels, scale, simd::load(s.minimum[k / 32] + row));
  else
    return simd::mul(levels, scale);
}

/// \brief Levels of row `row` for the columns from `k` on as weights.
template <int Count>
[[gnu::always_inline]] inline vec scale_cols(vec levels, const cell_scales& s, index_t row, index_t k) {
  const vec scale = col_scales<Count>(s, row, k);
  if constexpr (Count == halves_with_minimum)
    return simd::mul_then_add(levels, scale, simd::set(s.minimum[k / 32][row]));
  else
    return simd::mul(levels, scale);
}

/// \brief Where vectors of a tile go: slivers of `sliver_cols` columns, `sliver_stride` apart.
struct tile_place {
  float* data = nullptr;
  index_t sliver_stride = 0;

  float* at(index_t step, index_t col) const {
    return data + col / sliver_cols * sliver_stride + step * sliver_cols + col % sliver_cols;
  }
};

// Folds instead of loops over the eight registers: an array that a loop walks through goes to memory and
// back.

template <int Count, std::size_t... I>
[[gnu::always_inline]] inline void store_cols(const vec (&w)[8], const cell_scales& scales, index_t row,
                                              index_t k, tile_place out, std::index_sequence<I...>) {
  (simd::store(out.at(k + static_cast<index_t>(I), row),
               scale_rows<Count>(w[I], scales, row, k + static_cast<index_t>(I))),
   ...);
}

template <int Count, std::size_t... I>
[[gnu::always_inline]] inline void store_rows(const vec (&w)[8], const cell_scales& scales, index_t row,
                                              index_t k, tile_place out, std::index_sequence<I...>) {
  (simd::store(out.at(row + static_cast<index_t>(I), k),
               scale_cols<Count>(w[I], scales, row + static_cast<index_t>(I), k)),
   ...);
}

/// \brief Codes of a cell to [64 columns][64 rows].
template <int Count>
inline void decode_cell(const std::uint8_t* codes, const code_table& table, const cell_scales& scales,
                        tile_place out) {
  for (index_t k = 0; k < 64; k += 8)
    for (index_t row = 0; row < 64; row += simd::width) {
      vec w[8];
      decode_rows(codes + k * 32 + row * 4, table, w);
      store_cols<Count>(w, scales, row, k, out, std::make_index_sequence<8>{});
    }
}

/// \brief Codes of a cell to [64 rows][64 columns].
template <int Count>
inline void decode_cell_transposed(const std::uint8_t* codes, const code_table& table,
                                   const cell_scales& scales, tile_place out) {
  for (index_t row = 0; row < 64; row += 8)
    for (index_t k = 0; k < 64; k += simd::width) {
      vec w[8];
      decode_cols(codes, row, k, table, w);
      store_rows<Count>(w, scales, row, k, out, std::make_index_sequence<8>{});
    }
}

template <int Count>
inline void decode_either(const std::uint8_t* codes, const code_table& table, const cell_scales& scales,
                          bool transposed, tile_place out) {
  transposed ? decode_cell_transposed<Count>(codes, table, scales, out)
             : decode_cell<Count>(codes, table, scales, out);
}

/// \brief 8-bit codes of a cell, one scale for each half of a row, to a tile.
inline void decode_code8_cell(const std::int8_t* codes, const cell_scales& scales, tile_place out) {
  for (index_t k = 0; k < 64; ++k)
    for (index_t row = 0; row < 64; row += simd::width)
      simd::store(out.at(k, row), scale_rows<halves>(simd::load_codes(codes + k * 64 + row), scales, row, k));
}

inline void decode_code8_cell_transposed(const std::int8_t* codes, const cell_scales& scales,
                                         tile_place out) {
  for (index_t k = 0; k < 64; k += simd::width)
    for (index_t row = 0; row < 64; row += simd::width) {
      vec block[simd::width];
      for (index_t i = 0; i < simd::width; ++i)
        block[i] = scale_rows<halves>(simd::load_codes(codes + (k + i) * 64 + row), scales, row, k + i);
      simd::transpose(block);
      for (index_t i = 0; i < simd::width; ++i) simd::store(out.at(row + i, k), block[i]);
    }
}

template <Scalar T>
inline void convert_cell(const T* numbers, tile_place out) {
  for (index_t k = 0; k < 64; ++k)
    for (index_t row = 0; row < 64; row += simd::width)
      simd::store(out.at(k, row), simd::load_as_float(numbers + k * 64 + row));
}

template <Scalar T>
inline void convert_cell_transposed(const T* numbers, tile_place out) {
  for (index_t k = 0; k < 64; k += simd::width)
    for (index_t row = 0; row < 64; row += simd::width) {
      vec block[simd::width];
      for (index_t i = 0; i < simd::width; ++i) block[i] = simd::load_as_float(numbers + (k + i) * 64 + row);
      simd::transpose(block);
      for (index_t i = 0; i < simd::width; ++i) simd::store(out.at(row + i, k), block[i]);
    }
}

/// \brief One cell of any element type as a tile; `transposed` chooses [row][k].
inline void decode_any_cell(const frozen_weight& w, const code_table& table, index_t panel, index_t cell,
                            bool transposed, cell_scales& scales, tile_place out) {
  const std::uint8_t* bytes = w.bytes + w.layout.offset(panel, cell);
  if (w.layout.element == element_kind::code4) {
    read_scales(w, panel, cell, scales);
    scales.count == whole_cell   ? decode_either<whole_cell>(bytes, table, scales, transposed, out)
    : scales.count == halves     ? decode_either<halves>(bytes, table, scales, transposed, out)
    : scales.count == straddling ? decode_either<straddling>(bytes, table, scales, transposed, out)
                                 : decode_either<halves_with_minimum>(bytes, table, scales, transposed, out);
  } else if (w.layout.element == element_kind::code8) {
    read_scales(w, panel, cell, scales);
    const auto* codes = reinterpret_cast<const std::int8_t*>(bytes);
    transposed ? decode_code8_cell_transposed(codes, scales, out) : decode_code8_cell(codes, scales, out);
  } else if (w.layout.element == element_kind::f32) {
    const auto* numbers = reinterpret_cast<const float*>(bytes);
    transposed ? convert_cell_transposed(numbers, out) : convert_cell(numbers, out);
  } else if (w.layout.element == element_kind::bf16) {
    const auto* numbers = reinterpret_cast<const bf16*>(bytes);
    transposed ? convert_cell_transposed(numbers, out) : convert_cell(numbers, out);
  } else {
    const auto* numbers = reinterpret_cast<const f16*>(bytes);
    transposed ? convert_cell_transposed(numbers, out) : convert_cell(numbers, out);
  }
}
