// SPDX-License-Identifier: Apache-2.0
#include "emulated/avx512_shim.hpp"
#include "pesc/cpu/quantize.hpp"
#include "support/kernel_checks.hpp"

namespace {

using namespace pesc;

constexpr cpu::isa levels[] = {cpu::isa::avx512, cpu::isa::avx512_bf16};

void check_shape(index_t rows, index_t cols, std::initializer_list<index_t> tokens) {
  for (const format_info& info : support::frozen_formats(cols)) {
    const support::frozen_case w(info, rows, cols);
    for (const cpu::isa level : levels)
      for (const index_t m : tokens)
        for (const bool transpose : {false, true})
          for (const bool bf16 : {false, true})
            support::check_frozen(level, w, m, {transpose, m % 2 == 0, bf16});
  }
}

}  // namespace

TEST_SUITE("emulated/frozen") {
  TEST_CASE("512-bit products with 64 x 172 frozen weights agree with sums in double") {
    check_shape(64, 172, {1, 3});
  }
  TEST_CASE("512-bit products with 65 x 63 frozen weights agree with sums in double") {
    check_shape(65, 63, {2, 5});
  }
  TEST_CASE("512-bit products with 130 x 128 frozen weights agree with sums in double") {
    check_shape(130, 128, {1, 4, 7});
  }
  TEST_CASE("512-bit products with 70 x 1344 frozen weights agree with sums in double") {
    check_shape(70, 1344, {1});
  }
}

TEST_SUITE("emulated/matmul") {
  TEST_CASE("512-bit dense products agree with sums in double") {
    for (const index_t m : {1, 5, 13, 33})
      for (const index_t n : {1, 17, 64})
        for (const int form : {0, 1, 2, 3})
          support::check_matmul(cpu::isa::avx512, m, n, 37, {0.5f, form % 2 == 1, form >= 2, m % 2 == 0});
  }
}

TEST_SUITE("emulated/quantize") {
  TEST_CASE_TEMPLATE("512-bit dequantisation gives the bits of the portable one", T, float, bf16, f16) {
    constexpr index_t rows = 65, cols = 160;
    for (const format_info& info : support::frozen_formats(cols)) {
      const support::frozen_case w(info, rows, cols);
      std::vector<T> expected(w.values.size()), from_blocks(w.values.size()), from_panels(w.values.size());
      pesc::dequantize(w.stored.view(), matrix_view<T>(expected.data(), rows, cols));
      cpu::context<> ctx(1, cpu::runtime_isa{cpu::isa::avx512});
      dequantize(ctx, w.stored.view(), matrix_view<T>(from_blocks.data(), rows, cols));
      dequantize(ctx, w.packed.view(), matrix_view<T>(from_panels.data(), rows, cols));
      CHECK(std::memcmp(from_blocks.data(), expected.data(), expected.size() * sizeof(T)) == 0);
      CHECK(std::memcmp(from_panels.data(), expected.data(), expected.size() * sizeof(T)) == 0);
    }
  }

  TEST_CASE("512-bit quantisation gives the codes and scales of the portable rule") {
    for (const format_info& info : support::frozen_formats(172)) {
      const std::vector<float> weights = support::normal_floats(65 * 172, 9);
      const matrix_view<const float> view(weights.data(), 65, 172);
      const auto expected = pesc::quantize<any_format>(info, view);
      cpu::context<> ctx(1, cpu::runtime_isa{cpu::isa::avx512});
      quantized_matrix<any_format, row_blocks> out(info, 65, 172);
      quantize(ctx, info, view, out);
      CHECK(std::memcmp(out.codes().data, expected.codes().data,
                        static_cast<std::size_t>(expected.codes().size)) == 0);
      for (index_t i = 0; i < expected.absmax().size; ++i) CHECK(out.absmax()[i] == expected.absmax()[i]);
    }
  }
}
