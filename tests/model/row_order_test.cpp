// SPDX-License-Identifier: Apache-2.0
#include "pesc/model/row_order.hpp"

#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "pesc/quant/nf4.hpp"
#include "pesc/quant/quantize.hpp"
#include "pesc/quant/unquantized.hpp"
#include "support/message_of.hpp"
#include "support/random.hpp"

namespace {

using pesc::index_t;
constexpr auto halves = pesc::rope_pairing::halves, neighbours = pesc::rope_pairing::neighbours;

std::vector<float> values_of(const pesc::quantized_matrix<pesc::any_format, pesc::row_blocks>& m) {
  std::vector<float> out(static_cast<std::size_t>(m.rows() * m.cols()));
  pesc::dequantize(m.view(), pesc::matrix_view<float>{out.data(), m.rows(), m.cols()});
  return out;
}

}  // namespace

TEST_SUITE("model/row_order") {
  TEST_CASE("neighbours hold the two halves of a head in turn") {
    const pesc::row_order to_halves(6, neighbours, halves), to_neighbours(6, halves, neighbours);
    const index_t expected[] = {0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11};
    for (index_t r = 0; r < 12; ++r) {
      CHECK(to_halves.source(r) == expected[r]);
      CHECK(to_neighbours.source(to_halves.source(r)) == r);
      CHECK(to_halves.source(to_neighbours.source(r)) == r);
    }
  }

  TEST_CASE("equal pairings and the default change nothing") {
    for (const pesc::row_order& order : {pesc::row_order{}, pesc::row_order{6, halves, halves}}) {
      CHECK_FALSE(order.changes());
      CHECK(order.source(4) == 4);
    }
    CHECK(pesc::row_order(6, halves, neighbours).changes());
  }

  TEST_CASE("bytes move by rows") {
    std::vector<std::byte> rows;
    for (int r = 0; r < 4; ++r)
      for (int i = 0; i < 3; ++i) rows.push_back(static_cast<std::byte>(10 * r + i));
    const auto out = pesc::row_order(4, neighbours, halves).apply(rows, 3);
    CHECK(out[0] == std::byte{0});
    CHECK(out[3] == std::byte{20});
    CHECK(out[7] == std::byte{11});
    CHECK(out[11] == std::byte{32});
  }

  TEST_CASE("weights, biases and second matrices of queries and keys have such rows") {
    for (const char* end : {"weight", "bias", "lora_B.weight"})
      for (const char* module : {"q_proj.", "k_proj."})
        CHECK(pesc::has_head_rows("model.layers.3.self_attn." + std::string{module} + end));
    for (const char* name : {"self_attn.q_proj.lora_A.weight", "self_attn.v_proj.weight",
                             "mlp.up_proj.weight", "self_attn.o_proj.lora_B.weight"})
      CHECK_FALSE(pesc::has_head_rows("model.layers.3." + std::string{name}));
  }

  TEST_CASE("weights of every format keep their values to the bit") {
    const index_t rows = 24, cols = 128;
    const auto source = support::normal_floats(rows * cols, 1, 1.0);
    const pesc::row_order order(6, neighbours, halves);
    const auto levels = pesc::nf4<>::levels();
    for (const pesc::format_info& format :
         {pesc::make_code4_info(levels, 64, pesc::scale_kind::plain, "nf4"),
          pesc::make_code4_info(levels, 32, pesc::scale_kind::double_quant, "nf4"),
          pesc::unquantized<pesc::bf16>::info(), pesc::unquantized<float>::info()}) {
      const auto before =
          pesc::quantize<pesc::any_format>(format, pesc::matrix_view<const float>{source.data(), rows, cols});
      const auto after = pesc::reorder(before, order);
      CHECK(after.format().scales != pesc::scale_kind::double_quant);
      const auto a = values_of(before), b = values_of(after);
      for (index_t r = 0; r < rows; ++r)
        for (index_t c = 0; c < cols; ++c)
          CHECK(b[static_cast<std::size_t>(r * cols + c)] ==
                a[static_cast<std::size_t>(order.source(r) * cols + c)]);
    }
  }

  TEST_CASE("blocks that reach over a row's end are refused") {
    const auto source = support::normal_floats(24 * 72, 1, 1.0);
    const auto weight = pesc::quantize<pesc::any_format>(
        pesc::nf4<>::info(), pesc::matrix_view<const float>{source.data(), 24, 72});
    CHECK(support::contains(support::message_of([&] {
                              static_cast<void>(pesc::reorder(weight, {6, neighbours, halves}));
                            }),
                            "rows of 72 weights in blocks of 64 share scales"));
  }
}
