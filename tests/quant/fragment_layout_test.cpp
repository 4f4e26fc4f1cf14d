// SPDX-License-Identifier: Apache-2.0
#include "pesc/quant/fragment_layout.hpp"

#include <set>
#include <vector>

#include <doctest/doctest.h>

#include "pesc/quant/nf4.hpp"
#include "pesc/quant/quantized_matrix.hpp"
#include "pesc/quant/unquantized.hpp"

namespace {

using namespace pesc;

TEST_SUITE("quant/fragment_layout") {
  TEST_CASE("every code of a record has a place of its own") {
    std::set<index_t> places;
    for (index_t r = 0; r < 16; ++r)
      for (index_t k = 0; k < 64; ++k) {
        const index_t byte = fragment_layout::code_byte(r, k);
        CHECK(byte < 512);
        places.insert(2 * byte + fragment_layout::code_shift(k) / 4);
      }
    CHECK(places.size() == 1024);
  }

  TEST_CASE("every number of a record has a place of its own") {
    for (const format_info& info : {unquantized<float>::info(), unquantized<bf16>::info()}) {
      const fragment_layout l(info, 16, 64);
      std::set<index_t> places;
      for (index_t r = 0; r < 16; ++r)
        for (index_t k = 0; k < 64; ++k) {
          CHECK(l.number(r, k) < 1024);
          places.insert(l.number(r, k));
        }
      CHECK(places.size() == 1024);
    }
  }

  TEST_CASE("two neighbouring columns share a byte, the even one in the low nibble") {
    for (index_t k = 0; k < 64; k += 2) {
      CHECK(fragment_layout::code_byte(5, k) == fragment_layout::code_byte(5, k + 1));
      CHECK(fragment_layout::code_shift(k) == 0);
      CHECK(fragment_layout::code_shift(k + 1) == 4);
    }
  }

  // The definition of the operands of mma.m16n8k16: with lane = 4 g + t, register a of the left one holds row
  // g + 8 (a % 2) and positions 2 t + 8 (a / 2), + 1 of the contraction; register b of the right one
  // positions 2 t + 8 b, + 1 of column g.
  TEST_CASE("the registers of the lanes multiply to the product of the matrices") {
    const auto weight = [](index_t r, index_t k) { return static_cast<int>((r * 37 + k * 11) % 16); };
    const auto activation = [](index_t token, index_t k) {
      return static_cast<int>((token * 29 + k * 7) % 13) - 6;
    };
    std::vector<std::uint8_t> record(512);
    for (index_t r = 0; r < 16; ++r)
      for (index_t k = 0; k < 64; ++k) {
        std::uint8_t& byte = record[static_cast<std::size_t>(fragment_layout::code_byte(r, k))];
        byte = static_cast<std::uint8_t>(byte | weight(r, k) << fragment_layout::code_shift(k));
      }
    int product[16][8] = {};
    for (int step = 0; step < 4; ++step) {
      int a[16][16] = {}, b[16][8] = {};
      for (int lane = 0; lane < 32; ++lane) {
        const int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 4; ++i) {
          const int byte = record[static_cast<std::size_t>(lane * 16 + step * 4 + i)];
          a[g + 8 * (i % 2)][2 * t + 8 * (i / 2)] = byte & 15;
          a[g + 8 * (i % 2)][2 * t + 8 * (i / 2) + 1] = byte >> 4;
        }
        // Two steps take the eight activations from column 32 (step / 2) + 8 t on, in their order.
        for (int i = 0; i < 4; ++i)
          b[2 * t + 8 * (i / 2) + i % 2][g] = activation(g, 32 * (step / 2) + 8 * t + 4 * (step % 2) + i);
      }
      for (int r = 0; r < 16; ++r)
        for (int n = 0; n < 8; ++n)
          for (int k = 0; k < 16; ++k) product[r][n] += a[r][k] * b[k][n];
    }
    for (index_t r = 0; r < 16; ++r)
      for (index_t n = 0; n < 8; ++n) {
        int expected = 0;
        for (index_t k = 0; k < 64; ++k) expected += weight(r, k) * activation(n, k);
        CHECK(product[r][n] == expected);
      }
  }

  TEST_CASE("a lane holds four runs of eight columns, so that decoded rows are pieces of 16 bytes") {
    for (index_t r = 0; r < 16; ++r)
      for (index_t k = 0; k < 64; k += 8)
        for (index_t i = 0; i < 8; ++i) {
          CHECK(fragment_layout::lane(r, k + i) == r % 8 * 4 + k % 32 / 8);
          CHECK(fragment_layout::step(k + i) == k / 32 * 2 + i / 4);
          CHECK(fragment_layout::fragment_register(r, k + i) == r / 8 + i % 4 / 2 * 2);
        }
  }

  TEST_CASE("records of a group of tiles follow one another, and all of them fill the bytes") {
    for (const index_t rows : {1, 16, 17, 64, 80, 172, 192})
      for (const index_t cols : {1, 64, 65, 192}) {
        const fragment_layout l(nf4<64>::info(), rows, cols);
        std::set<index_t> places;
        for (index_t tile = 0; tile < l.tile_count(); ++tile)
          for (index_t cell = 0; cell < l.cell_count(); ++cell) {
            CHECK(l.offset(tile, cell) % l.record_bytes() == 0);
            CHECK(l.offset(tile, cell) < l.bytes());
            places.insert(l.offset(tile, cell));
            if (tile % 4 != 0) CHECK(l.offset(tile, cell) == l.offset(tile - 1, cell) + l.record_bytes());
          }
        CHECK(static_cast<index_t>(places.size()) * l.record_bytes() == l.bytes());
      }
  }

  TEST_CASE("scales by cells have places of their own, eight bytes or floats of a lane together") {
    for (const int block : {32, 64, 128, 4096})
      for (const index_t rows : {1, 16, 40})
        for (const index_t cols : {64, 192, 256, 576}) {
          format_info info = nf4<64>::info();
          info.block = block;
          const fragment_layout l(info, rows, cols);
          REQUIRE(l.scales_by_cell());
          std::set<index_t> places;
          for (index_t row = 0; row < rows; ++row)
            for (index_t unit = 0; unit < l.cell_count() * l.units_per_cell(); ++unit) {
              CHECK(l.scale_index(row, unit) < l.scale_count());
              places.insert(l.scale_index(row, unit));
            }
          CHECK(static_cast<index_t>(places.size()) == rows * l.cell_count() * l.units_per_cell());
          if (rows == 40) CHECK(l.scale_index(8, 0) == l.scale_index(0, 0) + 4 * l.units_per_cell());
        }
  }

  TEST_CASE("rows that are not made of whole cells keep the order of blocks") {
    const fragment_layout l(nf4<64>::info(), 65, 172);
    CHECK_FALSE(l.scales_by_cell());
    CHECK(l.scale_count() == ceil_div(65 * 172, 64));
    CHECK(l.scale_of(3, 10) == (3 * 172 + 10) / 64);
    CHECK_FALSE(fragment_layout(unquantized<bf16>::info(), 64, 64).scales_by_cell());
  }

  TEST_CASE("a matrix in this order has the sizes of the layout and says which layout it is") {
    const quantized_matrix<nf4<32, double_quant<>>, fragments> m(nf4<32, double_quant<>>::info(), 40, 192);
    const fragment_layout l = m.view().layout();
    CHECK(m.codes().size == l.bytes());
    CHECK(m.absmax().size == 0);
    CHECK(m.scale_codes().size == l.scale_count());
    CHECK(m.nested_absmax().size == 1);
    CHECK(m.map().size == 256);
    const quantized_matrix<any_format, fragments> plain(nf4<64>::info(), 5, 100);
    CHECK(plain.absmax().size == plain.view().layout().scale_count());
    CHECK(quantized_matrix<any_format, fragments>(nf4<64>::info(), 0, 64).codes().size == 0);
  }
}

}  // namespace
