// SPDX-License-Identifier: Apache-2.0
#include "pesc/quant/layout.hpp"

#include <set>

#include <doctest/doctest.h>

#include "pesc/quant/nf4.hpp"
#include "pesc/quant/unquantized.hpp"

namespace {

using namespace pesc;

TEST_CASE("every code of a cell has a place of its own") {
  std::set<index_t> places;
  for (index_t r = 0; r < 64; ++r)
    for (index_t k = 0; k < 64; ++k) {
      const index_t byte = panel_layout::code_byte(r, k);
      CHECK(byte < 2048);
      places.insert(2 * byte + panel_layout::code_shift(k) / 4);
    }
  CHECK(places.size() == 4096);
}

TEST_CASE("a 32-bit word holds eight columns of a row, vectors follow rows") {
  CHECK(panel_layout::code_byte(0, 0) == 0);
  CHECK(panel_layout::code_byte(0, 7) == 3);
  CHECK(panel_layout::code_byte(1, 0) == 4);
  CHECK(panel_layout::code_byte(16, 0) == 64);
  CHECK(panel_layout::code_byte(0, 8) == 256);
  CHECK(panel_layout::code_shift(0) == 0);
  CHECK(panel_layout::code_shift(3) == 4);
}

TEST_CASE("sizes are padded to whole cells") {
  const panel_layout l(nf4<64>::info(), 65, 130);
  CHECK(l.panel_count() == 2);
  CHECK(l.cell_count() == 3);
  CHECK(l.code_bytes() == 2048);
  CHECK(l.bytes() == l.panel_count() * l.cell_count() * l.cell_bytes());
  CHECK(l.offset(1, 2) == l.bytes() - l.cell_bytes());
  CHECK(panel_layout(unquantized<float>::info(), 64, 64).bytes() == 64 * 64 * 4);
  CHECK(panel_layout(nf4<64>::info(), 0, 64).bytes() == 0);
}

TEST_CASE("rows whose length is no multiple of the block straddle") {
  CHECK_FALSE(panel_layout(nf4<64>::info(), 172, 64).straddles());
  CHECK(panel_layout(nf4<64>::info(), 64, 172).straddles());
  CHECK_FALSE(panel_layout(nf4<64>::info(), 1, 172).straddles());
  CHECK_FALSE(panel_layout(nf4<32>::info(), 64, 96).straddles());
  CHECK(panel_layout(nf4<32>::info(), 64, 100).straddles());
  CHECK_FALSE(panel_layout(unquantized<bf16>::info(), 64, 172).straddles());
  // A block of 128 that begins in the middle of a row still changes at a border of cells.
  CHECK_FALSE(panel_layout(nf4<128>::info(), 64, 64).straddles());
}

TEST_CASE("the stored scales of a cell cover every column of every row") {
  for (const int block : {32, 64, 128, 256, 4096})
    for (const index_t rows : {1, 2, 5, 65})
      for (const index_t cols : {1, 20, 32, 40, 64, 96, 100, 128, 172, 200}) {
        format_info info = nf4<64>::info();
        info.block = block;
        const panel_layout l(info, rows, cols);
        bool covered = true;
        for (index_t row = 0; row < rows; ++row)
          for (index_t k = 0; k < cols; ++k) {
            const index_t cell = k / 64;
            const index_t block_index = (row * cols + k) / block;
            const index_t i = block_index - l.first_block(row, cell);
            covered &= i >= 0 && i < l.scales_per_row();
            // Scale i begins at its boundary.
            if (i > 0) covered &= l.boundary(row, cell, i) <= k % 64;
            covered &= l.boundary(row, cell, i + 1) > k % 64;
          }
        CAPTURE(block);
        CAPTURE(rows);
        CAPTURE(cols);
        CHECK(covered);
      }
}

}  // namespace
