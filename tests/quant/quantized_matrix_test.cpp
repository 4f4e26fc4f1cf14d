// SPDX-License-Identifier: Apache-2.0
#include "pesc/quant/quantized_matrix.hpp"

#include <vector>

#include <doctest/doctest.h>

#include "pesc/quant/fp4.hpp"
#include "pesc/quant/nf4.hpp"
#include "pesc/quant/unquantized.hpp"
#include "support/message_of.hpp"
#include "support/random.hpp"

namespace {

using namespace pesc;

template <class T>
void fill_bytes(vector_view<T> v, support::generator& g) {
  for (T& x : v) {
    const std::uint64_t word = g.bits();
    std::memcpy(&x, &word, sizeof(T));
  }
}

template <class T>
bool same_bytes(vector_view<const T> a, vector_view<const T> b) {
  return a.size == b.size &&
         (a.size == 0 || std::memcmp(a.data, b.data, static_cast<std::size_t>(a.size) * sizeof(T)) == 0);
}

/// Any bits whatever, as a file may hold them.
template <class Format>
quantized_matrix<Format, row_blocks> random_matrix(const format_info& info, index_t rows, index_t cols) {
  quantized_matrix<Format, row_blocks> m(info, rows, cols);
  support::generator g(static_cast<std::uint64_t>(rows * 1000 + cols));
  fill_bytes(m.codes(), g);
  fill_bytes(m.absmax(), g);
  fill_bytes(m.scale_codes(), g);
  fill_bytes(m.nested_absmax(), g);
  fill_bytes(m.map(), g);
  m.offset() = 0.25f;
  return m;
}

constexpr index_t edges[] = {1, 2, 3, 20, 31, 32, 33, 40, 63, 64, 65, 100, 128, 129, 172};

TEST_CASE("pack and unpack lose no bit for any shape, block and kind of scale") {
  index_t wrong = 0;
  for (const index_t rows : edges)
    for (const index_t cols : edges)
      for (const int block : {32, 64, 128, 4096})
        for (const scale_kind scales : {scale_kind::plain, scale_kind::double_quant}) {
          const format_info info = make_code4_info(nf4<>::levels(), block, scales, "nf4");
          const auto from = random_matrix<any_format>(info, rows, cols);
          const auto back = unpack(pack(from));
          const auto& a = from;
          const bool same = same_bytes(a.codes(), std::as_const(back).codes()) &&
                            same_bytes(a.absmax(), std::as_const(back).absmax()) &&
                            same_bytes(a.scale_codes(), std::as_const(back).scale_codes()) &&
                            same_bytes(a.nested_absmax(), std::as_const(back).nested_absmax()) &&
                            same_bytes(a.map(), std::as_const(back).map()) &&
                            a.offset() == std::as_const(back).offset();
          if (!same) {
            ++wrong;
            MESSAGE("rows ", rows, " cols ", cols, " block ", block);
          }
        }
  CHECK(wrong == 0);
}

TEST_CASE_TEMPLATE("numbers are packed without loss too", T, float, bf16, f16) {
  for (const index_t rows : edges)
    for (const index_t cols : edges) {
      const auto from = random_matrix<unquantized<T>>(unquantized<T>::info(), rows, cols);
      const auto back = unpack(pack(from));
      CHECK(same_bytes(from.codes(), std::as_const(back).codes()));
    }
}

TEST_CASE("padding decodes to zero: the code of zero, and scales of zero below the last row") {
  const auto from = random_matrix<nf4<32>>(nf4<32>::info(), 3, 70);
  const auto to = pack(from);
  const panel_layout layout = to.view().layout();
  for (index_t r = 0; r < 64; ++r)
    for (index_t k = 0; k < 128; ++k) {
      if (r < 3 && k < 70) continue;
      const std::uint8_t byte = to.codes()[layout.offset(0, k / 64) + panel_layout::code_byte(r, k % 64)];
      CHECK((byte >> panel_layout::code_shift(k) & 0x0F) == 7);
    }
  for (index_t r = 3; r < 64; ++r)
    for (index_t i = 0; i < layout.scales_per_row(); ++i) {
      float scale = 1;
      std::memcpy(&scale, to.codes().data + pesc::detail::panel_scale_byte(layout, r, 0, i), 4);
      CHECK(scale == 0.0f);
    }
}

TEST_CASE("a type compiled for one format refuses another by name") {
  const std::string message = support::message_of<shape_error>(
      [] { quantized_matrix<nf4<64>, row_blocks>(nf4<128>::info(), 2, 64); });
  CHECK(support::contains(message, "128"));
  CHECK(support::contains(message, "64"));
  const std::string other =
      support::message_of<shape_error>([] { quantized_matrix<nf4<64>, row_blocks>(fp4<64>::info(), 2, 64); });
  CHECK(support::contains(other, "fp4"));
}

TEST_CASE("sizes out of range are refused before memory is taken") {
  for (const index_t bad : {index_t{-1}, index_t{1} << 31, index_t{1} << 62}) {
    CHECK(support::contains(support::message_of<shape_error>(
                                [&] { quantized_matrix<any_format, panels>(nf4<>::info(), bad, 64); }),
                            "out of range"));
    CHECK(support::contains(support::message_of<shape_error>(
                                [&] { quantized_matrix<any_format, row_blocks>(nf4<>::info(), 64, bad); }),
                            "out of range"));
  }
  CHECK(support::contains(support::message_of<shape_error>([] {
                            quantized_matrix<any_format, row_blocks>(nf4<>::info(), 2147483647, 2147483647);
                          }),
                          "out of range"));
}

TEST_CASE("empty weights have no bytes and survive packing") {
  for (const index_t rows : {0, 5})
    for (const index_t cols : {0, 5}) {
      if (rows * cols != 0) continue;
      const quantized_matrix<nf4<>, row_blocks> m(nf4<>::info(), rows, cols);
      CHECK(m.empty());
      CHECK(m.codes().size == 0);
      const auto packed = pack(m);
      CHECK(packed.rows() == rows);
      CHECK(unpack(packed).cols() == cols);
    }
}

TEST_CASE("a missing tensor is named") {
  const format_info info = nf4<64, double_quant<>>::info();
  const auto owner = random_matrix<any_format>(info, 2, 64);
  auto view = owner.view();
  view.scales.nested_absmax = nullptr;
  CHECK(support::contains(support::message_of<shape_error>([&] { static_cast<void>(pack(view)); }),
                          "nested_absmax"));
  const auto plain = random_matrix<any_format>(nf4<>::info(), 2, 64);
  auto bare = plain.view();
  bare.scales.absmax = nullptr;
  CHECK(
      support::contains(support::message_of<shape_error>([&] { static_cast<void>(pack(bare)); }), "absmax"));
}

TEST_CASE("memory is about half a byte a weight and a float a block") {
  const quantized_matrix<nf4<64>, row_blocks> m(nf4<64>::info(), 256, 512);
  CHECK(m.bytes() == 256 * 512 / 2 + 256 * 512 / 64 * 4);
  const quantized_matrix<nf4<64, double_quant<>>, row_blocks> d(nf4<64, double_quant<>>::info(), 256, 512);
  CHECK(d.bytes() == 256 * 512 / 2 + 2048 + 4 * (8 + 256));
  CHECK(pack(m).bytes() == m.bytes());
}

}  // namespace
