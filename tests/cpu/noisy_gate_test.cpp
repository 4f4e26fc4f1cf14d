// SPDX-License-Identifier: Apache-2.0
#include "pesc/cpu/noisy_gate.hpp"

#include "cpu/op_test.hpp"
#include "pesc/cpu/routing.hpp"

namespace {

using namespace pesc;
using support::tensor;

template <class T>
vector_view<const T> read(const std::vector<T>& v) {
  return {v.data(), static_cast<index_t>(v.size())};
}
template <class T>
vector_view<T> write(std::vector<T>& v) {
  return {v.data(), static_cast<index_t>(v.size())};
}

TEST_CASE("fill_normal draws standard normal numbers that depend on the place alone") {
  const random_stream stream{.seed = 5, .step = 1, .site = random_site::router_noise};
  tensor whole(1000, 101);
  {
    cpu_backend ctx(1);
    fill_normal(ctx, stream, whole.view());
  }
  double sums[4] = {};
  for (const double x : whole.exact().values) {
    double power = 1;
    for (double& sum : sums) sum += power *= x;
  }
  const double n = static_cast<double>(whole.exact().count());
  // Moments of the normal distribution 0, 1, 0, 3; their estimates vary by sqrt(1, 2, 15, 96) / sqrt(n).
  CHECK(std::fabs(sums[0] / n) < 5 / std::sqrt(n));
  CHECK(std::fabs(sums[1] / n - 1) < 5 * 1.5 / std::sqrt(n));
  CHECK(std::fabs(sums[2] / n) < 5 * 3.9 / std::sqrt(n));
  CHECK(std::fabs(sums[3] / n - 3) < 5 * 9.8 / std::sqrt(n));
  support::on_every_context(
      [&](cpu_backend& ctx) {
        tensor part(50, 7);
        fill_normal(ctx, stream, part.view());
        CHECK(part.gaps_kept());
        for (index_t i = 0; i < 50; ++i)
          for (index_t j = 0; j < 7; ++j) CHECK(part.view()(i, j) == whole.view()(i, j));
        return part.values();
      },
      [](const std::vector<float>&) {});
}

TEST_CASE("noisy logits, load and their gradients agree with double precision") {
  for (const load_indicator indicator : {load_indicator::noisy_logit, load_indicator::llama_moe})
    for (const index_t experts : {2, 4, 8, 17})
      for (const index_t tokens : {20, 30, 600}) {
        CAPTURE(experts);
        CAPTURE(tokens);
        const int k = experts > 2 ? 2 : 1;
        const tensor clean = tensor::random(tokens, experts, 1), raw = tensor::random(tokens, experts, 2, 3),
                     noise = tensor::random(tokens, experts, 3);
        reference::router_options options;
        options.kind = reference::router_kind::noisy_top_k;
        options.top_k = k;
        options.indicator = indicator == load_indicator::llama_moe ? reference::load_indicator::llama_moe
                                                                   : reference::load_indicator::noisy_logit;
        const auto route = reference::route_logits(options, clean.exact(), noise.exact(), raw.exact());
        const reference::matrix load = reference::noisy_load(route);
        const std::vector<float> dload = support::normal_floats(experts, 4);
        reference::logit_gradients g;
        reference::noisy_load_backward(
            route, reference::matrix(1, experts, std::vector<double>(dload.begin(), dload.end())), g);
        std::vector<double> gradients = g.logits.values;
        gradients.insert(gradients.end(), g.deviation_raw.values.begin(), g.deviation_raw.values.end());
        support::on_every_context(
            [&](cpu_backend& ctx) {
              tensor noisy(tokens, experts);
              noisy_logits(ctx, clean.view(), raw.view(), noise.view(), 0.01f, noisy.view());
              CHECK(noisy.gaps_kept());
              CHECK(support::near(noisy.values(), route.noisy_logits.values, 1e-6));
              noisy_load_inputs<> in;
              in.clean = clean.view();
              in.raw = raw.view();
              in.noise = noise.view();
              in.noisy = as_const(noisy.view());
              in.k = k;
              in.epsilon = 0.01f;
              in.indicator = indicator;
              std::vector<double> sums(static_cast<std::size_t>(experts), 0.0);
              support::with_scratch([&](workspace<>& ws) { noisy_load(ctx, in, write(sums), ws); });
              CHECK(support::near(sums, load.values, 1e-5));
              tensor dclean(tokens, experts), draw(tokens, experts), dnoisy(tokens, experts);
              noisy_load_backward(ctx, in, read(dload), dclean.view(), draw.view(), dnoisy.view());
              noisy_logits_backward(ctx, raw.view(), noise.view(), as_const(dnoisy.view()), dclean.view(),
                                    draw.view());
              std::vector<float> result = support::together(dclean, draw);
              // Densities with a deviation of 0.01 amplify the rounding of logits a hundredfold.
              CHECK(support::near(result, gradients, 2e-4));
              for (const double s : sums) result.push_back(static_cast<float>(s));
              return result;
            },
            [](const std::vector<float>&) {});
      }
}

TEST_CASE("softplus stays finite and exact at both ends") {
  CHECK(cpu::detail::softplus(200.0f) == 200.0f);
  CHECK(cpu::detail::softplus(-200.0f) >= 0.0f);
  CHECK(cpu::detail::softplus(0.0f) == doctest::Approx(0.69314718056));
  CHECK(cpu::detail::softplus(-20.0f) == doctest::Approx(2.0611536e-9));
}

TEST_CASE("importance counts gates, load counts slots, dropped slots count nowhere") {
  cpu_backend ctx(1);
  const std::vector<std::int32_t> expert = {0, 2, 1, 0, 3, 2};
  const std::vector<float> gate = {0.5f, 0.5f, 1.0f, 0.0f, 0.7f, 0.25f};
  std::vector<double> importance(3), load(3);
  gate_totals(ctx, read(expert), read(gate), write(importance), write(load));
  CHECK(importance == std::vector<double>{0.5, 1.0, 0.75});
  CHECK(load == std::vector<double>{1, 1, 2});
  const std::vector<float> d = {1, 2, 3};
  std::vector<float> dgate(6, 10.0f);
  importance_backward(ctx, read(expert), read(d), write(dgate));
  CHECK(dgate == std::vector<float>{11, 13, 12, 11, 10, 13});
}

TEST_CASE("the squared variation and its gradient follow the formula") {
  cpu_backend ctx(1);
  for (const index_t n : {1, 2, 5, 16}) {
    const std::vector<double> v = support::uniform_doubles(n, 3, 0.5, 9);
    const auto exact = reference::cv_squared(reference::matrix(1, n, v));
    std::vector<float> d(static_cast<std::size_t>(n), 5.0f);
    cv_squared_gradient(ctx, read(v), 2.0, write(d));
    double variation = -1.0;
    cv_squared(ctx, read(v), vector_view<double>{&variation, 1});
    CHECK(variation == doctest::Approx(exact.value));
    CHECK(support::near(d, reference::scaled(exact.derivative, 2).values, 1e-6));
  }
}

}  // namespace
