// SPDX-License-Identifier: Apache-2.0
#include "gpu/device_tensor.hpp"
#include "pesc/gpu/optimizer.cuh"
#include "pesc/gpu/reduce.cuh"
#include "support/reference_optimizer.hpp"

namespace {

using namespace pesc;
using support::on_device;

constexpr adamw_options options{.beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-7, .weight_decay = 0.1};

/// What a step reads and writes, `begin` elements into its memory.
struct arena {
  on_device<float> p, g, m, v;
  index_t begin;

  arena(cuda_backend& ctx, const std::vector<float>& values, const std::vector<float>& gradient,
        index_t begin_ = 0)
      : p(ctx, values), g(ctx, gradient), m(ctx, p.view().size), v(ctx, p.view().size), begin{begin_} {}

  template <class... Clip>
  void step(cuda_backend& ctx, const adamw_coefficients& c, const Clip&... clip) {
    const auto part = [&](on_device<float>& x) { return x.view().part(begin, x.view().size - begin); };
    adamw_step(ctx, part(p), as_const(part(g)), part(m), part(v), c, clip...);
  }
};

TEST_SUITE("gpu/optimizer") {
  TEST_CASE("twenty AdamW steps follow double precision") {
    cuda_backend ctx;
    for (const index_t n : {0, 1, 3, 15, 16, 33, 5000})
      for (const index_t begin : {0, 1}) {
        CAPTURE(n);
        std::vector<float> start = support::normal_floats(n + begin, 1);
        reference::matrix p(1, n, std::vector<double>(start.begin() + begin, start.end()));
        reference::adamw_state state;
        reference::adamw_options exact;
        exact.beta1 = options.beta1;
        exact.beta2 = options.beta2;
        exact.epsilon = options.epsilon;
        exact.weight_decay = options.weight_decay;
        arena a(ctx, start, start, begin);
        for (std::uint64_t t = 1; t <= 20; ++t) {
          const std::vector<float> gradient = support::normal_floats(n + begin, 100 + t);
          reference::matrix g(1, n, std::vector<double>(gradient.begin() + begin, gradient.end()));
          for (double& x : g.values) x *= 0.5;
          const double rate = 1e-2 / static_cast<double>(t);
          reference::adamw_step(p, g, state, rate, exact);
          gpu::upload(ctx, vector_view<const float>(gradient.data(), n + begin), a.g.view());
          a.step(ctx, adamw_step_coefficients(options, rate, static_cast<index_t>(t), 0.5));
        }
        std::vector<float> result = a.p.values();
        if (begin == 1) CHECK(result[0] == start[0]);
        result.erase(result.begin(), result.begin() + begin);
        CHECK(support::near(result, p.values, 1e-6));
      }
  }

  TEST_CASE("a gradient of zero leaves only the decay") {
    cuda_backend ctx;
    arena a(ctx, std::vector<float>(20, 2.0f), std::vector<float>(20, 0.0f));
    a.step(ctx, adamw_step_coefficients({.weight_decay = 0.5}, 0.5, 1));
    CHECK(a.p.values() == std::vector<float>(20, 1.5f));
  }

  TEST_CASE("a rate of zero changes the moments alone") {
    cuda_backend ctx;
    const std::vector<float> start = {1, 2, 3, 4, 5};
    arena a(ctx, start, {0, 1, -1, 1e30f, 1e-30f});
    a.step(ctx, adamw_step_coefficients(options, 0.0, 1));
    CHECK(a.p.values() == start);
    CHECK(a.m.values()[1] != 0.0f);
  }

  TEST_CASE("a given norm clips the gradient, and nothing changes where it is not finite") {
    cuda_backend ctx;
    constexpr index_t n = 37;
    const std::vector<float> start = support::normal_floats(n, 1), gradient = support::normal_floats(n, 2);
    double squared = 0;
    for (const float x : gradient) squared += static_cast<double>(x) * static_cast<double>(x);
    on_device<double> norm(ctx, std::vector<double>{squared, NAN, INFINITY});
    const auto given = [&](index_t i) { return as_const(norm.view().part(i, 1)); };
    const auto expected = [&](double factor) {
      arena a(ctx, start, gradient);
      a.step(ctx, adamw_step_coefficients(options, 0.1, 3,
                                          0.25 * static_cast<double>(static_cast<float>(factor))));
      return a.p.values();
    };
    const auto coefficients = adamw_step_coefficients(options, 0.1, 3, 0.25);
    for (const double max_norm : {0.0, 1.0, 1000.0}) {
      arena a(ctx, start, gradient);
      a.step(ctx, coefficients, given(0), max_norm);
      CHECK(a.p.values() == expected(clip_factor(std::sqrt(squared), max_norm)));
    }
    for (const index_t bad : {1, 2}) {
      arena a(ctx, start, gradient);
      a.step(ctx, coefficients, given(bad), 1.0);
      CHECK(a.p.values() == start);
      CHECK(a.m.values() == std::vector<float>(n, 0.0f));
      CHECK(a.v.values() == std::vector<float>(n, 0.0f));
    }
  }

  TEST_CASE("step values take the place of the coefficients") {
    cuda_backend ctx;
    const std::vector<float> start = support::normal_floats(10, 1), gradient = support::normal_floats(10, 2);
    gpu::step_values now;
    now.adamw = adamw_step_coefficients(options, 0.3, 2);
    on_device<gpu::step_values> values(ctx, std::vector<gpu::step_values>{now});
    arena a(ctx, start, gradient), b(ctx, start, gradient);
    a.step(ctx, now.adamw);
    ctx.read_step_values(values.data());
    b.step(ctx, {});
    CHECK(a.p.values() == b.p.values());
    CHECK(a.p.values() != start);
  }

  TEST_CASE("a captured step of norm and update is replayed for other steps") {
    cuda_backend ctx;
    constexpr index_t n = 5003;
    const std::vector<float> start = support::normal_floats(n, 1), gradient = support::normal_floats(n, 2);
    on_device<gpu::step_values> values(ctx, 1);
    on_device<double> norm(ctx, 1);
    device_buffer<std::byte> memory(1 << 14);
    const auto step = [&](arena& a) {
      workspace<device_space> ws(memory.data(), memory.size());
      squared_norm(ctx, as_const(a.g.view()), norm.view(), ws);
      a.step(ctx, {}, as_const(norm.view()), 1.0);
    };
    const auto set = [&](index_t t) {
      gpu::step_values now;
      now.adamw = adamw_step_coefficients(options, 0.1 / static_cast<double>(t), t);
      gpu::upload(ctx, vector_view<const gpu::step_values>(&now, 1), values.view());
    };
    ctx.read_step_values(values.data());
    arena direct(ctx, start, gradient), captured(ctx, start, gradient);
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t program = nullptr;
    PESC_CUDA_TRY(cudaStreamBeginCapture(ctx.stream(), cudaStreamCaptureModeGlobal));
    step(captured);
    PESC_CUDA_TRY(cudaStreamEndCapture(ctx.stream(), &graph));
    PESC_CUDA_TRY(cudaGraphInstantiate(&program, graph, 0));
    for (const index_t t : {1, 2, 3}) {
      set(t);
      step(direct);
      PESC_CUDA_TRY(cudaGraphLaunch(program, ctx.stream()));
      CHECK(captured.p.values() == direct.p.values());
    }
    PESC_CUDA_TRY(cudaGraphExecDestroy(program));
    PESC_CUDA_TRY(cudaGraphDestroy(graph));
  }
}

}  // namespace
