// SPDX-License-Identifier: Apache-2.0
#include "pesc/cpu/quantize.hpp"

#include <cstring>
#include <limits>
#include <vector>

#include <doctest/doctest.h>

#include "support/host_isas.hpp"
#include "support/kernel_checks.hpp"

namespace {

using namespace pesc;
using stored_matrix = quantized_matrix<any_format, row_blocks>;

struct shape {
  index_t rows, cols;
};
const std::vector<shape> shapes{{64, 172}, {172, 64},  {32, 64},   {1, 1},
                                {65, 63},  {130, 257}, {70, 1344}, {1, 100}};

template <class T>
bool same_bytes(const T* a, const T* b, index_t n) {
  return n == 0 || std::memcmp(a, b, static_cast<std::size_t>(n) * sizeof(T)) == 0;
}

bool same_tensors(const stored_matrix& a, const stored_matrix& b) {
  return a.codes().size == b.codes().size && same_bytes(a.codes().data, b.codes().data, a.codes().size) &&
         same_bytes(a.absmax().data, b.absmax().data, a.absmax().size) &&
         same_bytes(a.scale_codes().data, b.scale_codes().data, a.scale_codes().size) &&
         same_bytes(a.nested_absmax().data, b.nested_absmax().data, a.nested_absmax().size) &&
         a.offset() == b.offset();
}

}  // namespace

TEST_SUITE("cpu/quantize") {
  TEST_CASE_TEMPLATE("every instruction set dequantises both orders to the same bits", T, float, bf16, f16) {
    for (const shape& size : shapes)
      for (const format_info& info : support::frozen_formats(size.cols)) {
        const index_t rows = size.rows, cols = size.cols;
        CAPTURE(support::describe(info));
        CAPTURE(rows);
        CAPTURE(cols);
        const support::frozen_case w(info, rows, cols);
        const std::size_t n = w.values.size();
        std::vector<T> expected(n), from_blocks(n), from_panels(n);
        pesc::dequantize(w.stored.view(), matrix_view<T>(expected.data(), rows, cols));
        for (const auto level : support::host_isas()) {
          CAPTURE(cpu::name_of(level));
          cpu::context<> ctx(2, cpu::runtime_isa{level});
          dequantize(ctx, w.stored.view(), matrix_view<T>(from_blocks.data(), rows, cols));
          dequantize(ctx, w.packed.view(), matrix_view<T>(from_panels.data(), rows, cols));
          CHECK(same_bytes(from_blocks.data(), expected.data(), rows * cols));
          CHECK(same_bytes(from_panels.data(), expected.data(), rows * cols));
        }
      }
  }

  TEST_CASE_TEMPLATE("every instruction set quantises to the codes and scales of the portable rule", T, float,
                     bf16, f16) {
    for (const shape& size : shapes)
      for (const format_info& info : support::frozen_formats(size.cols)) {
        if (info.is_read_only()) continue;
        const index_t rows = size.rows, cols = size.cols;
        CAPTURE(support::describe(info));
        CAPTURE(rows);
        CAPTURE(cols);
        std::vector<T> weights;
        // Padding between rows must not be read; a row of zeros makes zero blocks.
        const index_t stride = cols + (rows % 2 == 0 ? 0 : 5);
        for (const float x : support::normal_floats(rows * stride, 9)) weights.push_back(from_float<T>(x));
        for (index_t j = 0; j < cols && rows > 1; ++j)
          weights[static_cast<std::size_t>(stride + j)] = from_float<T>(0.0f);
        const matrix_view<const T> view(weights.data(), rows, cols, stride);
        const stored_matrix expected = pesc::quantize<any_format>(info, view);
        for (const auto level : support::host_isas()) {
          CAPTURE(cpu::name_of(level));
          cpu::context<> ctx(2, cpu::runtime_isa{level});
          stored_matrix out(info, rows, cols);
          quantize(ctx, info, view, out);
          CHECK(same_tensors(out, expected));
        }
      }
  }

  TEST_CASE("a given offset takes the place of the mean of the scales") {
    cpu::context<> ctx(2);
    const std::vector<float> weights = support::normal_floats(70 * 64, 9);
    const matrix_view<const float> view(weights.data(), 70, 64);
    const float offset = 0.5f;
    for (const int block : {64, 8}) {
      CAPTURE(block);
      const format_info info = make_code4_info(nf4<>::levels(), block, scale_kind::double_quant, "nf4");
      const stored_matrix expected = pesc::quantize<any_format>(info, view, &offset);
      stored_matrix out(info, 70, 64);
      quantize(ctx, info, view, out, &offset);
      CHECK(out.offset() == offset);
      CHECK(same_tensors(out, expected));
    }
  }

  TEST_CASE("weights on and next to the thresholds get the codes of the portable rule") {
    for (const format_info& info : {nf4<64>::info(), fp4<64>::info()}) {
      std::vector<float> weights;
      for (const float threshold : info.thresholds)
        for (const float x : {std::nextafter(threshold, -2.0f), threshold, std::nextafter(threshold, 2.0f)})
          weights.push_back(x);
      while (weights.size() % 64 != 0) weights.push_back(weights.size() % 64 == 63 ? 1.0f : -0.0f);
      const matrix_view<const float> view(weights.data(), 1, static_cast<index_t>(weights.size()));
      const stored_matrix expected = pesc::quantize<any_format>(info, view);
      for (const auto level : support::host_isas()) {
        cpu::context<> ctx(1, cpu::runtime_isa{level});
        stored_matrix out(info, view.rows, view.cols);
        quantize(ctx, info, view, out);
        CHECK(same_tensors(out, expected));
      }
    }
  }

  TEST_CASE("a weight that is not finite is an error that names its position") {
    for (const float bad :
         {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
      std::vector<float> weights = support::normal_floats(8 * 200, 9);
      weights[777] = bad;
      const matrix_view<const float> view(weights.data(), 8, 200);
      for (const auto level : support::host_isas()) {
        cpu::context<> ctx(2, cpu::runtime_isa{level});
        stored_matrix out(nf4<64>::info(), 8, 200);
        CHECK_THROWS_WITH_AS(quantize(ctx, nf4<64>::info(), view, out), doctest::Contains("777"),
                             numeric_error);
      }
    }
  }
}
