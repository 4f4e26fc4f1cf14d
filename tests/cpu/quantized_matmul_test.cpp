// SPDX-License-Identifier: Apache-2.0
#include "pesc/cpu/quantized_matmul.hpp"

#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include "support/count_allocations.hpp"
#include "support/host_isas.hpp"
#include "support/kernel_checks.hpp"

namespace {

using namespace pesc;
using support::frozen_case;
using support::padded_matrix;

void check_shape(index_t rows, index_t cols, std::initializer_list<index_t> tokens) {
  for (const format_info& info : support::frozen_formats(cols)) {
    const frozen_case w(info, rows, cols);
    for (const auto level : support::host_isas())
      for (const index_t m : tokens)
        for (const bool transpose : {false, true})
          for (const bool bf16 : {false, true})
            support::check_frozen(level, w, m, {transpose, (m + rows) % 2 == 0, bf16});
  }
}

}  // namespace

TEST_SUITE("cpu/quantized_matmul") {
  TEST_CASE("products with 64 x 172 frozen weights agree with sums in double") {
    check_shape(64, 172, {1, 2, 3, 5, 16});
  }
  TEST_CASE("products with 172 x 64 frozen weights agree with sums in double") {
    check_shape(172, 64, {1, 4, 7, 33});
  }
  TEST_CASE("products with 32 x 64 frozen weights agree with sums in double") {
    check_shape(32, 64, {1, 2, 5});
  }
  TEST_CASE("products with one frozen weight agree with sums in double") { check_shape(1, 1, {1, 3}); }
  TEST_CASE("products with 65 x 63 frozen weights agree with sums in double") {
    check_shape(65, 63, {1, 4, 6});
  }
  TEST_CASE("products with 130 x 257 frozen weights agree with sums in double") {
    check_shape(130, 257, {1, 5, 17});
  }
  TEST_CASE("products with 192 x 320 frozen weights agree with sums in double") {
    check_shape(192, 320, {1, 2, 3, 4, 5, 6, 7, 8, 16, 70});
  }
  TEST_CASE("second-level scales change along rows and panels") { check_shape(70, 1344, {1, 4}); }

  TEST_CASE("results with frozen weights do not depend on the number of threads") {
    const frozen_case w(nf4<64, double_quant<>>::info(), 200, 320);
    for (const auto level : support::host_isas())
      for (const bool transpose : {false, true})
        for (const bool bf16 : {false, true})
          for (const index_t m : {1, 3, 20}) {
            const padded_matrix x(m, transpose ? 200 : 320, 1);
            const quantized_options options{transpose, false, bf16};
            const padded_matrix single = support::frozen_product(level, w, x, options, 1);
            for (const int threads : {2, 3, 8})
              CHECK(support::frozen_product(level, w, x, options, threads).values == single.values);
          }
  }

  TEST_CASE("a fixed instruction set and inline execution give the bits of the run-time choice") {
    const frozen_case w(nf4<64>::info(), 96, 128);
    const padded_matrix x(5, 128, 1);
    const padded_matrix expected = support::frozen_product(cpu::isa::scalar, w, x, {});
    cpu::context<cpu::inline_executor, cpu::fixed_isa<cpu::isa::scalar>> ctx;
    padded_matrix y(5, 96, 3);
    support::run_counted(
        [&](workspace<>& ws) { quantized_matmul(ctx, x.view(), w.packed.view(), y.view(), {}, ws); });
    CHECK(y.values == expected.values);
  }

  TEST_CASE("a product with a frozen weight allocates nothing") {
    const frozen_case w(nf4<64, double_quant<>>::info(), 96, 128);
    for (const auto level : support::host_isas())
      for (const bool bf16 : {false, true})
        for (const index_t m : {1, 20}) {
          const padded_matrix x(m, 128, 1);
          padded_matrix y(m, 96, 3);
          cpu::context<> ctx(2, cpu::runtime_isa{level});
          const quantized_options options{false, false, bf16};
          workspace<> count;
          quantized_matmul(ctx, x.view(), w.packed.view(), y.view(), options, count);
          buffer<std::byte> memory(count.peak());
          workspace<> ws(memory.data(), memory.size());
          CHECK(support::allocations_of(
                    [&] { quantized_matmul(ctx, x.view(), w.packed.view(), y.view(), options, ws); }) == 0);
        }
  }

  TEST_CASE("more tokens never need less scratch") {
    const frozen_case w(nf4<64>::info(), 96, 128);
    for (const auto level : support::host_isas()) {
      cpu::context<> ctx(1, cpu::runtime_isa{level});
      index_t last = 0;
      for (index_t m = 1; m < 80; ++m) {
        workspace<> count;
        quantized_matmul(ctx, {nullptr, m, 128}, w.packed.view(), {nullptr, m, 96}, {}, count);
        CHECK(count.peak() >= last);
        last = count.peak();
      }
    }
  }
}
