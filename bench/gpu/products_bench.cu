// SPDX-License-Identifier: Apache-2.0

// Frozen products and dequantisation on a device, each beside a copy of memory in the same run. Weights take turns, so that
// none is left in a cache when its turn comes again.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include "gpu/event_timer.hpp"
#include "gpu/random_weight.hpp"
#include "pesc/gpu/quantize.cuh"
#include "pesc/gpu/quantized_matmul.cuh"
#include "pesc/quant/quantize.hpp"

namespace {

using namespace pesc;
using bench::weight_format;

struct product_case {
  index_t rows, cols, tokens;
  bool transpose, bf16;

  [[nodiscard]] index_t depth() const { return transpose ? rows : cols; }
  [[nodiscard]] index_t features() const { return transpose ? cols : rows; }
  [[nodiscard]] std::string name() const {
    return std::string(transpose ? "dx=dy*W" : "y=x*Wt") + "/nf4_dq/" + (bf16 ? "bf16" : "float") + "/" +
           std::to_string(rows) + "x" + std::to_string(cols) + "/m:" + std::to_string(tokens);
  }
};

/// \brief The packed weight of a shape, often enough to exceed every cache, made once.
class cold_weights {
 public:
  using packed_matrix = quantized_matrix<weight_format, fragments, device_resource>;

  cold_weights(cuda_backend& ctx, index_t rows, index_t cols) : source_{bench::random_weight(rows, cols)} {
    constexpr index_t more_than_caches = index_t{256} << 20;
    const index_t bytes = rows * cols / 2;
    // A small weight is for checking, not for timing.
    const index_t copies = bytes < 1 << 20 ? 1 : ceil_div(more_than_caches, bytes);
    for (index_t i = 0; i < copies; ++i) packed_.push_back(pack(ctx, source_.view()));
  }

  [[nodiscard]] const packed_matrix& next() { return packed_[turn_++ % packed_.size()]; }
  [[nodiscard]] const quantized_matrix<weight_format, row_blocks>& source() const { return source_; }
  [[nodiscard]] double bytes() const {
    return static_cast<double>(source_.codes().size + source_.scale_codes().size +
                               4 * source_.nested_absmax().size);
  }

 private:
  quantized_matrix<weight_format, row_blocks> source_;
  std::vector<packed_matrix> packed_;
  std::size_t turn_ = 0;
};

cold_weights& weights_of(cuda_backend& ctx, index_t rows, index_t cols) {
  static std::map<std::pair<index_t, index_t>, std::unique_ptr<cold_weights>> made;
  std::unique_ptr<cold_weights>& one = made[{rows, cols}];
  if (!one) one = std::make_unique<cold_weights>(ctx, rows, cols);
  return *one;
}

[[noreturn]] void stop(const std::string& name, double actual, double expected) {
  std::fprintf(stderr, "%s: wrong result, %g where %g is expected\n", name.c_str(), actual, expected);
  std::exit(1);
}

/// \brief Ends the program when the first features of the last token differ from sums in double.
void check(const product_case& c, const cold_weights& w, const std::vector<float>& x,
           const std::vector<float>& y) {
  std::vector<float> dense(static_cast<std::size_t>(c.rows * c.cols));
  dequantize(w.source().view(), matrix_view<float>(dense.data(), c.rows, c.cols));
  const float* token = x.data() + (c.tokens - 1) * c.depth();
  for (index_t j = 0; j < std::min<index_t>(c.features(), 64); ++j) {
    double sum = 0, size = 0;
    for (index_t k = 0; k < c.depth(); ++k) {
      const float a = c.bf16 ? to_float(to_bf16(token[k])) : token[k];
      const double product = static_cast<double>(a) *
                             dense[static_cast<std::size_t>(c.transpose ? k * c.cols + j : j * c.cols + k)];
      sum += product;
      size += product * product;
    }
    const double actual = y[static_cast<std::size_t>((c.tokens - 1) * c.features() + j)];
    if (!(std::fabs(actual - sum) <= (c.bf16 ? 2e-2 : 1e-4) * std::sqrt(size))) stop(c.name(), actual, sum);
  }
}

void run_product(benchmark::State& state, const product_case& c) {
  cuda_backend ctx;
  bench::event_timer timer(ctx);
  cold_weights& weights = weights_of(ctx, c.rows, c.cols);
  std::vector<float> values(static_cast<std::size_t>(c.tokens * c.depth())),
      result(static_cast<std::size_t>(c.tokens * c.features()));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = std::sin(static_cast<float>(i % 9973));
  device_buffer<float> x(c.tokens * c.depth()), y(c.tokens * c.features());
  upload(ctx, vector_view<const float>{values.data(), x.size()}, x.view());
  const auto multiply = [&](workspace<device_space>& ws) {
    quantized_matmul(ctx, as_const(x.matrix(c.tokens, c.depth())), weights.next().view(),
                     y.matrix(c.tokens, c.features()), {.transpose = c.transpose, .round_bf16 = c.bf16}, ws);
  };
  workspace<device_space> count;
  multiply(count);
  device_buffer<std::byte> memory(count.peak() + 64);
  workspace<device_space> ws(memory.data(), memory.size());
  multiply(ws);
  download(ctx, as_const(y.view()), vector_view<float>{result.data(), y.size()});
  check(c, weights, values, result);

  constexpr int launches = 20;
  double total = 0;
  for (auto _ : state) {
    const double seconds = timer.seconds([&] {
      for (int i = 0; i < launches; ++i) multiply(ws);
    }) / launches;
    state.SetIterationTime(seconds);
    total += seconds;
  }
  const double seconds = total / static_cast<double>(state.iterations());
  bench::copy_probe probe;
  static_cast<void>(probe.rate(ctx, timer));
  state.counters["GB/s"] = weights.bytes() / seconds * 1e-9;
  state.counters["TFLOP/s"] =
      2.0 * static_cast<double>(c.tokens * c.rows) * static_cast<double>(c.cols) / seconds * 1e-12;
  state.counters["copy_GB/s"] = probe.rate(ctx, timer) * 1e-9;
}

void run_dequantize(benchmark::State& state, index_t rows, index_t cols) {
  cuda_backend ctx;
  bench::event_timer timer(ctx);
  cold_weights& weights = weights_of(ctx, rows, cols);
  device_buffer<bf16> out(rows * cols);
  double total = 0;
  for (auto _ : state) {
    const double seconds =
        timer.seconds([&] { dequantize(ctx, weights.next().view(), out.matrix(rows, cols)); });
    state.SetIterationTime(seconds);
    total += seconds;
  }
  std::vector<bf16> expected(static_cast<std::size_t>(rows * cols)), actual(expected.size());
  dequantize(weights.source().view(), matrix_view<bf16>(expected.data(), rows, cols));
  download(ctx, as_const(out.view()), vector_view<bf16>{actual.data(), out.size()});
  for (std::size_t i = 0; i < expected.size(); ++i)
    if (expected[i].bits != actual[i].bits) stop("dequantize", to_float(actual[i]), to_float(expected[i]));
  const double seconds = total / static_cast<double>(state.iterations());
  bench::copy_probe probe;
  static_cast<void>(probe.rate(ctx, timer));
  state.counters["GB/s"] = (weights.bytes() + 2.0 * static_cast<double>(rows * cols)) / seconds * 1e-9;
  state.counters["copy_GB/s"] = probe.rate(ctx, timer) * 1e-9;
}

const bool registered = [] {
  const auto add = [](const std::string& name, auto run) {
    benchmark::RegisterBenchmark(name.c_str(), run)->UseManualTime()->Unit(benchmark::kMicrosecond);
  };
  const auto add_shape = [&](index_t rows, index_t cols, const std::vector<index_t>& tokens) {
    for (const bool transpose : {false, true})
      for (const bool low : {true, false})
        for (const index_t m : tokens) {
          const product_case c{rows, cols, m, transpose, low};
          add(c.name(), [c](benchmark::State& state) { run_product(state, c); });
        }
    add("dequantize/nf4_dq/bf16/" + std::to_string(rows) + "x" + std::to_string(cols),
        [rows, cols](benchmark::State& state) { run_dequantize(state, rows, cols); });
  };
  add_shape(128, 192, {3, 70});  // small enough for a simulator, which checks results and times nothing
  add_shape(4096, 4096, {1, 8, 16, 32, 64, 512});
  add_shape(11008, 4096, {1, 8, 16, 32, 64, 512});
  return true;
}();

}  // namespace
