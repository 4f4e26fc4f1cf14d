// SPDX-License-Identifier: Apache-2.0

#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include "cpu/memory.hpp"
#include "cpu/probes.hpp"
#include "pesc/cpu/matmul.hpp"
#include "support/random.hpp"

namespace {

using namespace pesc;
using bench::index_t;

/// \brief y[m, n] = a b over k; the goal is a share of the multiply peak of one thread.
struct dense_case {
  cpu::isa level;
  index_t m, n, k;
  bool transpose_a, transpose_b;

  std::string name() const {
    return std::string("matmul/") +
           (transpose_a   ? "AtB"
            : transpose_b ? "ABt"
                          : "AB") +
           "/" + cpu::name_of(level) + "/" + std::to_string(m) + "x" + std::to_string(n) + "x" +
           std::to_string(k);
  }
};

constexpr double goal = 0.85;  ///< what good libraries for floats reach on large products

void run_dense(benchmark::State& state, const dense_case& c) {
  cpu::context<> ctx(1, cpu::runtime_isa{c.level});
  const std::vector<float> a = support::uniform_floats(c.m * c.k, 1),
                           b = support::uniform_floats(c.n * c.k, 2);
  std::vector<float> y(static_cast<std::size_t>(c.m * c.n));
  const matrix_view<const float> left(a.data(), c.transpose_a ? c.k : c.m, c.transpose_a ? c.m : c.k);
  const matrix_view<const float> right(b.data(), c.transpose_b ? c.n : c.k, c.transpose_b ? c.k : c.n);
  const matrix_view<float> result(y.data(), c.m, c.n);
  const matmul_options options{1.0f, c.transpose_a, c.transpose_b, false};
  workspace<> count;
  matmul(ctx, left, right, result, options, count);
  const bench::large_memory scratch(count.peak());
  workspace<> ws(scratch.as<std::byte>(), count.peak());
  const double flop = 2.0 * static_cast<double>(c.m * c.n) * static_cast<double>(c.k);
  const int repeats = static_cast<int>(1 + 1e8 / flop);
  std::vector<double> seconds, peaks, shares;
  for (auto _ : state) {
    const double peak = bench::multiply_peak(c.level, false);
    const double begin = bench::cpu_seconds();
    for (int i = 0; i < repeats; ++i) matmul(ctx, left, right, result, options, ws);
    const double time = (bench::cpu_seconds() - begin) / repeats;
    state.SetIterationTime(time);
    seconds.push_back(time);
    peaks.push_back(peak);
    shares.push_back(flop / time / peak);
  }
  state.counters["GFLOP/s"] = flop / bench::median(seconds) * 1e-9;
  state.counters["peak_GFLOP/s"] = bench::median(peaks) * 1e-9;
  state.counters["of_peak"] = bench::median(shares);
  state.counters["of_goal"] = bench::median(shares) / goal;
}

const bool registered = [] {
  for (const cpu::isa level : {cpu::isa::scalar, cpu::isa::avx2, cpu::isa::avx512}) {
    if (level > cpu::detect_isa()) continue;
    for (const dense_case& c :
         {dense_case{level, 512, 1024, 1024, false, true}, dense_case{level, 512, 64, 4096, false, true},
          dense_case{level, 512, 4096, 64, false, true}, dense_case{level, 512, 64, 4096, false, false},
          dense_case{level, 64, 4096, 512, true, false}, dense_case{level, 1, 64, 4096, false, true},
          dense_case{level, 1, 4096, 64, false, true}})
      benchmark::RegisterBenchmark(c.name().c_str(), [c](benchmark::State& state) { run_dense(state, c); })
          ->UseManualTime()
          ->Unit(benchmark::kMillisecond)
          ->Iterations(9);
  }
  return true;
}();

}  // namespace
