// SPDX-License-Identifier: Apache-2.0

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include "cpu/measured_pool.hpp"
#include "cpu/memory.hpp"
#include "cpu/probes.hpp"
#include "pesc/cpu/quantized_matmul.hpp"
#include "pesc/quant/nf4.hpp"
#include "support/random.hpp"

namespace {

using namespace pesc;
using bench::index_t;

/// \brief What one benchmark measures.
struct product_case {
  cpu::isa level;
  bool double_quant;
  bool transpose;
  bool bf16;
  index_t tokens;
  int threads;
  index_t rows = 4096;
  index_t cols = 4096;

  std::string name() const {
    return std::string(transpose ? "dx=dy*W" : "y=x*Wt") + "/" + (double_quant ? "nf4_dq" : "nf4") + "/" +
           (bf16 ? "bf16" : "float") + "/" + cpu::name_of(level) + "/m:" + std::to_string(tokens) +
           "/threads:" + std::to_string(threads);
  }
};

/// \brief Packed weights of random codes; enough copies that none is left in a cache when its turn comes
/// again.
class cold_weights {
 public:
  cold_weights(const format_info& info, index_t rows, index_t cols)
      : layout_(info, rows, cols), info_{info}, map_(dynamic_map()) {
    const index_t copies = ceil_div(index_t{160} << 20, layout_.bytes());
    support::generator g(7);
    for (index_t i = 0; i < copies; ++i) {
      memory_.emplace_back(layout_.bytes());
      fill(memory_.back().as<std::uint8_t>(), g, i);
    }
    for (index_t i = 0; i < ceil_div(info.blocks(rows * cols), nested_block); ++i)
      nested_.push_back(static_cast<float>(g.uniform(0.005, 0.01)));
  }

  quantized_view<any_format, panels> next() {
    const large_memory_list& list = memory_;
    turn_ = (turn_ + 1) % list.size();
    return {info_,
            list[turn_].as<std::uint8_t>(),
            {nullptr, nullptr, nested_.data(), map_.data(), 0.02f},
            layout_.rows,
            layout_.cols};
  }
  double bytes() const { return static_cast<double>(layout_.bytes()); }

 private:
  using large_memory_list = std::vector<bench::large_memory>;

  void fill(std::uint8_t* bytes, support::generator& g, index_t copy) const {
    if (copy > 0) {
      std::memcpy(bytes, memory_.front().as<std::uint8_t>(), static_cast<std::size_t>(layout_.bytes()));
      return;
    }
    for (index_t panel = 0; panel < layout_.panel_count(); ++panel)
      for (index_t cell = 0; cell < layout_.cell_count(); ++cell) {
        std::uint8_t* place = bytes + layout_.offset(panel, cell);
        for (index_t i = 0; i < layout_.cell_bytes(); i += 8) {
          const std::uint64_t bits = g.bits();
          std::memcpy(place + i, &bits,
                      static_cast<std::size_t>(std::min<index_t>(8, layout_.cell_bytes() - i)));
        }
        if (layout_.scales != scale_kind::plain) continue;
        for (index_t i = 0; i < 64; ++i) {
          const float scale = static_cast<float>(g.uniform(0.01, 0.03));
          std::memcpy(place + layout_.code_bytes() + 4 * i, &scale, 4);
        }
      }
  }

  panel_layout layout_;
  format_info info_;
  std::array<float, 256> map_;
  std::vector<float> nested_;
  large_memory_list memory_;
  std::size_t turn_ = 0;
};

cold_weights& weights_for(const product_case& c) {
  static cold_weights plain(nf4<64>::info(), 4096, 4096);
  static cold_weights nested(nf4<64, double_quant<>>::info(), 4096, 4096);
  return c.double_quant ? nested : plain;
}

/// \brief The share of a ceiling that the design asks for, and whether that ceiling is the memory.
struct goal {
  double share;
  bool memory;
};

goal goal_of(const product_case& c, double multiply_peak, double read_peak, double bytes, double flop) {
  const bool wide = c.level >= cpu::isa::avx512;
  if (c.tokens <= 1) {
    if (wide && c.bf16 && !c.transpose && c.level == cpu::isa::avx512_bf16)
      return {c.double_quant ? 0.93 : 0.95, true};
    // Bound by the instructions of the decoder: cycles per 64 bytes of codes, 32 FLOP per cycle at the peak.
    const double cycles = wide ? 12.4 : 33.0;
    const double clock = multiply_peak / (c.bf16 && c.level == cpu::isa::avx512_bf16 ? 64 : 32);
    const double rate = bytes / 4096.0 / 4096.0 * 2 * 64 / cycles * clock;
    static_cast<void>(flop);
    return {(wide ? 0.91 : 0.95) * std::min(1.0, rate / read_peak), true};
  }
  if (wide)
    return {
        c.transpose && c.tokens < 64 ? 0.75 : 0.92 + (c.bf16 && c.tokens > 256 && !c.transpose ? 0.03 : 0.0),
        false};
  if (c.transpose) return {c.tokens < 64 ? 0.6 : 0.88, false};
  return {c.tokens < 64 ? 0.75 : 0.92, false};
}

/// \brief Ends the program when the first tokens of a result are not those of the portable kernels.
void check_product(const product_case& c, const quantized_view<any_format, panels>& w,
                   matrix_view<const float> x, matrix_view<const float> y) {
  const index_t tokens = std::min<index_t>(x.rows, 2);
  std::vector<float> expected(static_cast<std::size_t>(tokens * y.cols));
  cpu::context<> ctx(1, cpu::runtime_isa{cpu::isa::scalar});
  const matrix_view<float> result(expected.data(), tokens, y.cols);
  const quantized_options options{c.transpose, false, c.bf16};
  workspace<> count;
  quantized_matmul(ctx, x.row_range(0, tokens), w, result, options, count);
  const bench::large_memory scratch(count.peak());
  workspace<> ws(scratch.as<std::byte>(), count.peak());
  quantized_matmul(ctx, x.row_range(0, tokens), w, result, options, ws);
  double worst = 0, largest = 0;
  for (index_t t = 0; t < tokens; ++t)
    for (index_t j = 0; j < y.cols; ++j) {
      worst = std::max(worst, static_cast<double>(std::fabs(y(t, j) - result(t, j))));
      largest = std::max(largest, static_cast<double>(std::fabs(result(t, j))));
    }
  if (worst <= (c.bf16 ? 2e-2 : 1e-5) * largest) return;
  std::fprintf(stderr, "%s: wrong result, error %g of %g\n", c.name().c_str(), worst, largest);
  std::exit(1);
}

void run_product(benchmark::State& state, const product_case& c) {
  cold_weights& weights = weights_for(c);
  const index_t in = c.transpose ? c.rows : c.cols;
  const index_t out = c.transpose ? c.cols : c.rows;
  cpu::context<bench::measured_pool> ctx(c.threads, cpu::runtime_isa{c.level});
  std::vector<float> x = support::normal_floats(c.tokens * in, 1);
  std::vector<float> y(static_cast<std::size_t>(c.tokens * out));
  const matrix_view<const float> xs(x.data(), c.tokens, in);
  const matrix_view<float> ys(y.data(), c.tokens, out);
  const quantized_options options{c.transpose, false, c.bf16};
  workspace<> count;
  quantized_matmul(ctx, xs, weights.next(), ys, options, count);
  const bench::large_memory scratch(count.peak());
  workspace<> ws(scratch.as<std::byte>(), count.peak());

  constexpr index_t probe_floats = index_t{16} << 20;
  static const bench::large_memory probe(2 * probe_floats * 4);
  const double flop = 2.0 * static_cast<double>(c.tokens * in) * static_cast<double>(out);
  const int repeats = c.tokens < 16 ? 8 : 1;
  std::vector<double> seconds, read, multiply, share, done;
  const quantized_view<any_format, panels> first = weights.next();
  quantized_matmul(ctx, xs, first, ys, options, ws);
  check_product(c, first, xs, as_const(ys));
  for (auto _ : state) {
    ctx.executor().take_seconds();
    ctx.executor().parallel_for(c.threads, 1, [&](index_t begin, index_t, int) {
      bench::read_memory(c.level, probe.as<float>() + begin * probe_floats, probe_floats);
    });
    const double read_time = ctx.executor().take_seconds();
    const double peak = bench::multiply_peak(c.level, c.bf16) * c.threads;
    for (int i = 0; i < repeats; ++i) quantized_matmul(ctx, xs, weights.next(), ys, options, ws);
    const double time = ctx.executor().take_seconds() / repeats;
    state.SetIterationTime(time);
    const double bandwidth = 4.0 * probe_floats * c.threads / read_time;
    const goal g = goal_of(c, peak, bandwidth, weights.bytes(), flop);
    seconds.push_back(time);
    read.push_back(bandwidth);
    multiply.push_back(peak);
    share.push_back(g.memory ? weights.bytes() / time / bandwidth : flop / time / peak);
    done.push_back(share.back() / g.share);
  }
  const double time = bench::median(seconds);
  state.counters["GFLOP/s"] = flop / time * 1e-9;
  state.counters["GB/s"] = weights.bytes() / time * 1e-9;
  state.counters["read_GB/s"] = bench::median(read) * 1e-9;
  state.counters["peak_GFLOP/s"] = bench::median(multiply) * 1e-9;
  state.counters["of_ceiling"] = bench::median(share);
  state.counters["of_goal"] = bench::median(done);
}

void add_product(const product_case& c) {
  benchmark::RegisterBenchmark(c.name().c_str(), [c](benchmark::State& state) { run_product(state, c); })
      ->UseManualTime()
      ->Unit(benchmark::kMillisecond)
      ->Iterations(c.tokens > 64 ? 7 : 15);
}

const bool registered = [] {
  for (const cpu::isa level : {cpu::isa::avx2, cpu::isa::avx512, cpu::isa::avx512_bf16}) {
    if (level > cpu::detect_isa()) continue;
    for (const bool transpose : {false, true})
      for (const bool bf16 : {false, true}) {
        if (bf16 != (level == cpu::isa::avx512_bf16)) continue;
        for (const bool nested : {false, true})
          for (const index_t tokens : {1, 16, 512})
            for (const int threads : {1, 2}) add_product({level, nested, transpose, bf16, tokens, threads});
      }
  }
  return true;
}();

}  // namespace
