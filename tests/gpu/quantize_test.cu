// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include "gpu/device.hpp"
#include "gpu/weight_formats.hpp"
#include "pesc/gpu/quantize.cuh"
#include "pesc/quant/fp4.hpp"
#include "pesc/quant/nf4.hpp"
#include "pesc/quant/quantize.hpp"
#include "pesc/quant/unquantized.hpp"
#include "support/random.hpp"

namespace {

using namespace pesc;
using support::formats;
using stored_matrix = quantized_matrix<any_format, row_blocks>;

struct shape {
  index_t rows, cols;
};
const std::vector<shape> shapes{{64, 192}, {80, 256}, {16, 64}, {1, 1}, {65, 63}, {24, 172}, {33, 320}};

template <class T>
bool same_bytes(vector_view<const T> a, vector_view<const T> b) {
  return a.size == b.size &&
         (a.size == 0 || std::memcmp(a.data, b.data, static_cast<std::size_t>(a.size) * sizeof(T)) == 0);
}

bool same_tensors(const stored_matrix& a, const stored_matrix& b) {
  return same_bytes(a.codes(), b.codes()) && same_bytes(a.absmax(), b.absmax()) &&
         same_bytes(a.scale_codes(), b.scale_codes()) && same_bytes(a.nested_absmax(), b.nested_absmax()) &&
         same_bytes(a.map(), b.map()) && a.offset() == b.offset();
}

/// Any bits whatever, as a file may hold them.
stored_matrix random_matrix(const format_info& info, index_t rows, index_t cols) {
  stored_matrix m(info, rows, cols);
  support::generator g(static_cast<std::uint64_t>(rows * 1000 + cols));
  const auto fill = [&](auto view) {
    for (auto& x : view) {
      const std::uint64_t word = g.bits();
      std::memcpy(&x, &word, sizeof x);
    }
  };
  fill(m.codes());
  fill(m.absmax());
  fill(m.scale_codes());
  fill(m.nested_absmax());
  fill(m.map());
  m.offset() = 0.25f;
  return m;
}

TEST_SUITE("gpu/quantize") {
  TEST_CASE("pack and unpack lose no bit for any shape, block and kind of scale") {
    cuda_backend ctx;
    for (const format_info& info : formats())
      for (const auto [rows, cols] : shapes) {
        CAPTURE(std::string(info.name));
        CAPTURE(info.block);
        CAPTURE(rows);
        CAPTURE(cols);
        const stored_matrix from = random_matrix(info, rows, cols);
        CHECK(same_tensors(gpu::to_host(ctx, unpack(ctx, gpu::pack(ctx, from.view()))), from));
      }
  }

  TEST_CASE("packed records are those of the layout, with padding that decodes to zero") {
    cuda_backend ctx;
    for (const auto [rows, cols] : shapes) {
      const stored_matrix from = random_matrix(nf4<64>::info(), rows, cols);
      const auto packed = gpu::pack(ctx, from.view());
      const fragment_layout layout = packed.view().layout();
      std::vector<std::uint8_t> codes(static_cast<std::size_t>(layout.bytes()));
      download(ctx, packed.codes(), vector_view<std::uint8_t>(codes.data(), layout.bytes()));
      index_t wrong = 0;
      for (index_t r = 0; r < layout.tile_count() * 16; ++r)
        for (index_t k = 0; k < layout.cell_count() * 64; ++k) {
          const index_t byte = layout.offset(r / 16, k / 64) + fragment_layout::code_byte(r % 16, k % 64);
          const int code = codes[static_cast<std::size_t>(byte)] >> fragment_layout::code_shift(k) & 15;
          const bool inside = r < rows && k < cols;
          wrong += code != (inside ? pesc::detail::row_block_code(from.codes().data, r * cols + k) : 7);
        }
      CHECK(wrong == 0);
    }
  }

  TEST_CASE_TEMPLATE("both orders dequantise to the bits of the host", T, float, bf16, f16) {
    cuda_backend ctx;
    for (const format_info& info : formats())
      for (const auto [rows, cols] : shapes) {
        CAPTURE(std::string(info.name));
        CAPTURE(info.block);
        CAPTURE(rows);
        CAPTURE(cols);
        const std::vector<float> weights = support::normal_floats(rows * cols, 5);
        const stored_matrix from =
            pesc::quantize<any_format>(info, matrix_view<const float>(weights.data(), rows, cols));
        const index_t stride = cols + (rows == 80 ? 8 : rows % 3);
        const std::vector<T> guard(static_cast<std::size_t>(rows * stride), from_float<T>(7.0f));
        std::vector<T> expected = guard;
        pesc::dequantize(from.view(), matrix_view<T>(expected.data(), rows, cols, stride));
        const auto check = [&](const auto& view) {
          support::on_device<T> out(ctx, guard);
          dequantize(ctx, view, matrix_view<T, device_space>(out.data(), rows, cols, stride));
          const std::vector<T> values = out.values();
          CHECK(std::memcmp(values.data(), expected.data(), values.size() * sizeof(T)) == 0);
        };
        const auto stored = gpu::to_device(ctx, from.view());
        check(std::as_const(stored).view());
        check(pack(ctx, stored.view()).view());
      }
  }

  TEST_CASE_TEMPLATE("the device quantises to the codes and scales of the host", T, float, bf16, f16) {
    cuda_backend ctx;
    std::vector<shape> sizes = shapes;
    sizes.push_back({70, 1344});
    for (const format_info& info : formats())
      for (const auto [rows, cols] : sizes) {
        CAPTURE(std::string(info.name));
        CAPTURE(info.block);
        CAPTURE(rows);
        CAPTURE(cols);
        // Padding between rows must not be read; a row of zeros makes zero blocks.
        const index_t stride = cols + (rows % 2 == 0 ? 0 : 5);
        std::vector<T> weights;
        for (const float x : support::normal_floats(rows * stride, 9)) weights.push_back(from_float<T>(x));
        for (index_t j = 0; j < cols && rows > 1; ++j)
          weights[static_cast<std::size_t>(stride + j)] = from_float<T>(0.0f);
        const stored_matrix expected =
            pesc::quantize<any_format>(info, matrix_view<const T>(weights.data(), rows, cols, stride));
        support::on_device<T> memory(ctx, weights);
        quantized_matrix<any_format, row_blocks, device_resource> out(info, rows, cols);
        quantize(ctx, info, matrix_view<const T, device_space>(memory.data(), rows, cols, stride), out);
        CHECK(same_tensors(gpu::to_host(ctx, out), expected));
      }
  }

  TEST_CASE("a given offset takes the place of the mean of the scales") {
    cuda_backend ctx;
    const format_info info = nf4<64, double_quant<>>::info();
    const std::vector<float> weights = support::normal_floats(70 * 64, 9);
    const float offset = 0.5f;
    support::on_device<float> memory(ctx, weights);
    quantized_matrix<any_format, row_blocks, device_resource> out(info, 70, 64);
    quantize(ctx, info, as_const(memory.matrix(70, 64)), out, &offset);
    const matrix_view<const float> view(weights.data(), 70, 64);
    CHECK(same_tensors(gpu::to_host(ctx, out), pesc::quantize<any_format>(info, view, &offset)));
  }

  TEST_CASE("weights on and next to the thresholds, and tiny ones, get the codes of the host") {
    cuda_backend ctx;
    for (const format_info& info : {nf4<64>::info(), fp4<64>::info()}) {
      std::vector<float> weights;
      for (const float threshold : info.thresholds)
        for (const float x : {std::nextafter(threshold, -2.0f), threshold, std::nextafter(threshold, 2.0f)})
          weights.push_back(x);
      while (weights.size() % 64 != 0) weights.push_back(weights.size() % 64 == 63 ? 1.0f : -0.0f);
      for (int i = 0; i < 100; ++i) weights.push_back(i == 63 ? 1e-30f : i == 90 ? -3e-39f : 0.0f);
      const index_t n = static_cast<index_t>(weights.size());
      support::on_device<float> memory(ctx, weights);
      quantized_matrix<any_format, row_blocks, device_resource> out(info, 1, n);
      quantize(ctx, info, as_const(memory.matrix(1, n)), out);
      CHECK(same_tensors(gpu::to_host(ctx, out),
                         pesc::quantize<any_format>(info, matrix_view<const float>(weights.data(), 1, n))));
    }
  }

  TEST_CASE("a weight that is not finite is an error that names the position of the first") {
    cuda_backend ctx;
    for (const float bad :
         {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
      std::vector<float> weights = support::normal_floats(8 * 200, 9);
      weights[777] = weights[1500] = bad;
      support::on_device<float> memory(ctx, weights);
      quantized_matrix<nf4<64>, row_blocks, device_resource> out(nf4<64>::info(), 8, 200);
      CHECK_THROWS_WITH_AS(quantize(ctx, nf4<64>::info(), as_const(memory.matrix(8, 200)), out),
                           doctest::Contains("weight 777 is not finite"), numeric_error);
    }
  }

  TEST_CASE("empty weights survive packing, and a missing tensor is named") {
    cuda_backend ctx;
    const stored_matrix empty(nf4<>::info(), 0, 64);
    CHECK(unpack(ctx, gpu::pack(ctx, empty.view())).cols() == 64);
    const stored_matrix owner = random_matrix(nf4<64, double_quant<>>::info(), 2, 64);
    auto view = owner.view();
    view.scales.nested_absmax = nullptr;
    CHECK_THROWS_WITH_AS(static_cast<void>(gpu::pack(ctx, view)), doctest::Contains("nested_absmax"),
                         shape_error);
  }
}

}  // namespace
