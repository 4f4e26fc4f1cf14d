// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include "gpu/device.hpp"
#include "gpu/weight_formats.hpp"
#include "pesc/gpu/quantize.cuh"
#include "pesc/gpu/quantized_matmul.cuh"
#include "pesc/quant/fp4.hpp"
#include "pesc/quant/nf4.hpp"
#include "pesc/quant/quantize.hpp"
#include "pesc/quant/unquantized.hpp"
#include "support/random.hpp"

namespace {

using namespace pesc;
using support::formats;

/// A frozen weight on the device and its values.
struct frozen_case {
  quantized_matrix<any_format, fragments, device_resource> packed;
  std::vector<float> values;
  index_t rows, cols;

  frozen_case(gpu::context& ctx, const format_info& info, index_t row_count, index_t col_count)
      : values(static_cast<std::size_t>(row_count * col_count)), rows{row_count}, cols{col_count} {
    const std::vector<float> weights = support::normal_floats(rows * cols, 5);
    const auto stored =
        pesc::quantize<any_format>(info, matrix_view<const float>(weights.data(), rows, cols));
    packed = pack(ctx, stored.view());
    pesc::dequantize(stored.view(), matrix_view<float>(values.data(), rows, cols));
  }
};

/// Numbers of a matrix whose rows lie further apart than they are long, at an address of no alignment.
struct padded {
  index_t rows, cols, stride, begin;
  std::vector<float> values;

  padded(index_t row_count, index_t col_count, index_t gap, std::uint64_t seed)
      : rows{row_count},
        cols{col_count},
        stride{col_count + gap},
        begin{gap == 0 ? 0 : 1},
        values(support::normal_floats(row_count * stride + 8, seed)) {}
  [[nodiscard]] double at(index_t i, index_t j) const {
    return static_cast<double>(values[static_cast<std::size_t>(begin + i * stride + j)]);
  }
};

struct error_size {
  double worst;  ///< largest error over the largest result
  double rms;    ///< root of the mean square of errors over that of results
};

/// Runs a product and compares it with sums in double; checks that nothing outside of the result changes.
///
/// \param result  becomes the values of y
error_size product_error(gpu::context& ctx, const frozen_case& w, index_t tokens,
                         const quantized_options& options, index_t gap = 0, bool short_x = false,
                         std::vector<float>* result = nullptr) {
  const index_t depth = options.transpose ? w.rows : w.cols, features = options.transpose ? w.cols : w.rows;
  padded x(tokens, depth, gap, 1);
  if (short_x)
    for (float& v : x.values) v = to_float(to_bf16(v));
  padded y(tokens, features, gap, 3);
  const padded before = y;
  support::on_device<float> x_memory(ctx, x.values), y_memory(ctx, y.values);
  const matrix_view<const float, device_space> x_view(x_memory.data() + x.begin, tokens, depth, x.stride);
  const matrix_view<float, device_space> y_view(y_memory.data() + y.begin, tokens, features, y.stride);
  workspace<device_space> count;
  quantized_matmul(ctx, x_view, w.packed.view(), y_view, options, count);
  const device_buffer<std::byte> memory(count.peak());
  workspace<device_space> ws(const_cast<std::byte*>(memory.data()), memory.size());
  quantized_matmul(ctx, x_view, w.packed.view(), y_view, options, ws);
  CHECK(ws.peak() == count.peak());
  y.values = y_memory.values();
  if (result != nullptr) *result = y.values;
  double worst = 0, largest = 1e-30, squares = 1e-60, errors = 0;
  for (index_t i = 0; i < tokens; ++i)
    for (index_t j = 0; j < features; ++j) {
      double sum = options.accumulate ? before.at(i, j) : 0.0;
      for (index_t k = 0; k < depth; ++k)
        sum += x.at(i, k) *
               static_cast<double>(
                   w.values[static_cast<std::size_t>(options.transpose ? k * w.cols + j : j * w.cols + k)]);
      const double error = std::fabs(y.at(i, j) - sum);
      worst = std::isnan(error) ? 1e30 : std::fmax(worst, error);
      largest = std::fmax(largest, std::fabs(sum));
      squares += sum * sum;
      errors += error * error;
      y.values[static_cast<std::size_t>(y.begin + i * y.stride + j)] =
          before.values[static_cast<std::size_t>(y.begin + i * y.stride + j)];
    }
  CHECK(y.values == before.values);
  return {worst / largest, std::sqrt(errors / squares)};
}

void check_exact(gpu::context& ctx, index_t rows, index_t cols, std::initializer_list<index_t> token_counts) {
  for (const format_info& info : formats()) {
    const frozen_case w(ctx, info, rows, cols);
    for (const index_t tokens : token_counts)
      for (const bool transpose : {false, true}) {
        CAPTURE(std::string(info.name));
        CAPTURE(info.block);
        CAPTURE(tokens);
        CAPTURE(transpose);
        CHECK(product_error(ctx, w, tokens, {transpose, tokens % 2 == 0, false}, tokens % 3).worst <= 1e-5);
      }
  }
}

/// Products that round to bfloat16, for all formats.
void check_rounded(gpu::context& ctx, index_t rows, index_t cols, std::initializer_list<index_t> token_counts,
                   std::initializer_list<bool> directions = {false, true}) {
  for (const format_info& info : formats()) {
    const frozen_case w(ctx, info, rows, cols);
    for (const index_t tokens : token_counts)
      for (const bool transpose : directions) {
        CAPTURE(std::string(info.name));
        CAPTURE(info.block);
        CAPTURE(rows);
        CAPTURE(cols);
        CAPTURE(tokens);
        CAPTURE(transpose);
        const error_size e = product_error(ctx, w, tokens, {transpose, tokens % 2 == 0, true}, tokens % 3);
        CHECK(e.worst <= 2e-2);
        CHECK(e.rms <= 3.5e-3);
      }
  }
}

TEST_SUITE("gpu/quantized_matmul") {
  TEST_CASE("rounded products for few tokens") {
    cuda_backend ctx;
    check_rounded(ctx, 64, 64, {1, 8}, {false});
    check_rounded(ctx, 100, 320, {2, 9, 32}, {false});
  }
  TEST_CASE("rounded products for many tokens") {
    cuda_backend ctx;
    check_rounded(ctx, 100, 320, {33, 70}, {false});
    check_rounded(ctx, 80, 128, {64}, {false});
  }
  TEST_CASE("rounded products with the transposed weight") {
    cuda_backend ctx;
    check_rounded(ctx, 100, 192, {1, 70, 130}, {true});
  }
  TEST_CASE("second-level scales change along rows") {
    cuda_backend ctx;
    const frozen_case w(ctx, nf4<64, double_quant<>>::info(), 70, 1344);
    for (const index_t tokens : {3, 40})
      for (const bool transpose : {false, true})
        CHECK(product_error(ctx, w, tokens, {transpose, false, true}).rms <= 3.5e-3);
  }

  // The work of these is cut into many ranges, which begin and end anywhere.
  TEST_CASE("many blocks share the tiles of a rounded product, with the same bits every time") {
    cuda_backend ctx;
    const format_info info = nf4<64, double_quant<>>::info();
    const frozen_case wide(ctx, info, 1088, 1216), tall(ctx, info, 2112, 192), flat(ctx, info, 64, 6400);
    for (const frozen_case* w : {&wide, &tall, &flat})
      for (const index_t tokens : {1, 7, 12, 30, 65, 150})
        for (const bool transpose : {false, true}) {
          CAPTURE(w->rows);
          CAPTURE(w->cols);
          CAPTURE(tokens);
          CAPTURE(transpose);
          std::vector<float> first, second;
          const quantized_options options{transpose, false, true};
          CHECK(product_error(ctx, *w, tokens, options, 0, false, &first).rms <= 3.5e-3);
          product_error(ctx, *w, tokens, options, 0, false, &second);
          CHECK(first == second);
        }
  }

  // With activations that bfloat16 holds exactly, only the weights are rounded: codes alone where scales come
  // after the sums (1.38e-3 for normal weights), otherwise products of code and scale (1.65e-3).
  TEST_CASE("the error of rounded weights is that of their rounding") {
    cuda_backend ctx;
    const frozen_case w(ctx, nf4<64>::info(), 256, 2048);
    for (const index_t tokens : {4, 16, 24}) {
      const error_size e = product_error(ctx, w, tokens, {false, false, true}, 0, true);
      CHECK(e.rms <= 1.5e-3);
    }
    for (const bool transpose : {false, true}) {
      const error_size e = product_error(ctx, w, 64, {transpose, false, true}, 0, true);
      CHECK(e.rms <= 1.8e-3);
    }
  }

  TEST_CASE("a format that is known at compile time gives the bits of one that is not") {
    cuda_backend ctx;
    const auto check = [&]<QuantFormat Format>(Format) {
      const frozen_case w(ctx, Format::info(), 128, 256);
      const auto view = w.packed.view();
      const quantized_view<Format, fragments, device_space> known(Format::info(), view.codes, view.scales,
                                                                  128, 256);
      for (const index_t tokens : {5, 40})
        for (const bool rounded : {false, true})
          for (const bool transpose : {false, true}) {
            const index_t depth = transpose ? 128 : 256, features = transpose ? 256 : 128;
            support::on_device<float> x(ctx, support::normal_floats(tokens * depth, 4));
            support::on_device<float> a(ctx, tokens * features), b(ctx, tokens * features);
            const device_buffer<std::byte> memory(1 << 24);
            workspace<device_space> ws(const_cast<std::byte*>(memory.data()), memory.size());
            const quantized_options options{transpose, false, rounded};
            quantized_matmul(ctx, as_const(x.matrix(tokens, depth)), view, a.matrix(tokens, features),
                             options, ws);
            quantized_matmul(ctx, as_const(x.matrix(tokens, depth)), known, b.matrix(tokens, features),
                             options, ws);
            CHECK(a.values() == b.values());
          }
    };
    check(nf4<64>{});
    check(nf4<32, double_quant<>>{});
    check(unquantized<bf16>{});
  }

  TEST_CASE("more tokens never need less scratch") {
    cuda_backend ctx;
    for (const format_info& info : {nf4<64>::info(), nf4<32>::info(), unquantized<bf16>::info()})
      for (const auto [rows, cols] : {std::pair<index_t, index_t>{704, 256}, {4096, 4096}, {11008, 4096}})
        for (const bool transpose : {false, true}) {
          const quantized_view<any_format, fragments, device_space> w(info, nullptr, {}, rows, cols);
          index_t last = 0;
          for (index_t m = 1; m < 3000; m += m < 70 ? 1 : 97) {
            workspace<device_space> count;
            quantized_matmul(ctx, {nullptr, m, transpose ? rows : cols}, w,
                             {nullptr, m, transpose ? cols : rows}, {transpose, false, true}, count);
            CHECK(count.peak() >= last);
            last = count.peak();
          }
        }
  }

  TEST_CASE("products captured in a graph give the same bits at every replay") {
    cuda_backend ctx;
    const frozen_case w(ctx, nf4<64, double_quant<>>::info(), 512, 1024);
    const index_t m = 20;
    support::on_device<float> x(ctx, support::normal_floats(m * 1024, 4)), y(ctx, m * 512),
        back(ctx, m * 1024);
    const device_buffer<std::byte> memory(1 << 26);
    workspace<device_space> ws(const_cast<std::byte*>(memory.data()), memory.size());
    const auto run = [&] {
      quantized_matmul(ctx, as_const(x.matrix(m, 1024)), w.packed.view(), y.matrix(m, 512),
                       {false, false, true}, ws);
      quantized_matmul(ctx, as_const(y.matrix(m, 512)), w.packed.view(), back.matrix(m, 1024),
                       {true, false, true}, ws);
    };
    run();
    const std::vector<float> expected = back.values();
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t executable = nullptr;
    PESC_CUDA_TRY(cudaStreamBeginCapture(ctx.stream(), cudaStreamCaptureModeThreadLocal));
    run();
    PESC_CUDA_TRY(cudaStreamEndCapture(ctx.stream(), &graph));
    PESC_CUDA_TRY(cudaGraphInstantiate(&executable, graph, 0));
    for (int i = 0; i < 3; ++i) {
      PESC_CUDA_TRY(cudaMemsetAsync(back.data(), 0, m * 1024 * sizeof(float), ctx.stream()));
      PESC_CUDA_TRY(cudaGraphLaunch(executable, ctx.stream()));
      CHECK(back.values() == expected);
    }
    PESC_CUDA_TRY(cudaGraphExecDestroy(executable));
    PESC_CUDA_TRY(cudaGraphDestroy(graph));
  }

  TEST_CASE("empty products, and sums over nothing") {
    cuda_backend ctx;
    const frozen_case w(ctx, nf4<64>::info(), 64, 64);
    const device_buffer<std::byte> memory(1 << 20);
    workspace<device_space> ws(const_cast<std::byte*>(memory.data()), memory.size());
    quantized_matmul(ctx, {nullptr, 0, 64}, w.packed.view(), {nullptr, 0, 64}, {}, ws);
    const quantized_matrix<any_format, row_blocks> none(nf4<64>::info(), 5, 0);
    support::on_device<float> y(ctx, std::vector<float>(10, 3.0f));
    const auto packed = pack(ctx, none.view());
    for (const bool accumulate : {true, false}) {
      quantized_matmul(ctx, {nullptr, 2, 0}, packed.view(), y.matrix(2, 5), {false, accumulate, true}, ws);
      CHECK(y.values() == std::vector<float>(10, accumulate ? 3.0f : 0.0f));
    }
  }

  TEST_CASE("exact products with 64 x 172 weights, whose blocks straddle rows") {
    cuda_backend ctx;
    check_exact(ctx, 64, 172, {1, 5, 16});
  }
  TEST_CASE("exact products with 80 x 192 weights") {
    cuda_backend ctx;
    check_exact(ctx, 80, 192, {1, 4, 70});
  }
  TEST_CASE("exact products with one weight, and with 65 x 63") {
    cuda_backend ctx;
    check_exact(ctx, 1, 1, {1, 3});
    check_exact(ctx, 65, 63, {2, 17});
  }
}

}  // namespace
