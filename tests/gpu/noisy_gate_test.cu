// SPDX-License-Identifier: Apache-2.0
#include "gpu/device_tensor.hpp"
#include "pesc/gpu/noisy_gate.cuh"
#include "support/reference_balance.hpp"

namespace {

using namespace pesc;
using support::device_tensor;
using support::on_device;
using support::placement;

/// \brief The numbers of `fill_normal`, from the same words in double.
std::vector<double> normal_numbers(const random_stream& s, index_t rows, index_t cols) {
  std::vector<double> result;
  for (index_t i = 0; i < rows; ++i)
    for (index_t j = 0; j < cols; ++j) {
      const auto words = s.words(static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(j / 4));
      const auto pair = static_cast<std::size_t>(j % 4 / 2 * 2);
      const double radius = std::sqrt(-2 * std::log(1 - static_cast<double>(to_unit(words[pair]))));
      const double angle = 2 * std::numbers::pi * static_cast<double>(to_unit(words[pair + 1]));
      result.push_back(radius * (j % 2 == 0 ? std::cos(angle) : std::sin(angle)));
    }
  return result;
}

TEST_SUITE("gpu/noisy_gate") {
  TEST_CASE("fill_normal draws the numbers that belong to their places") {
    cuda_backend ctx;
    const random_stream stream{.seed = 5, .step = 1, .site = random_site::router_noise};
    for (const index_t rows : {0, 1, 50})
      for (const index_t cols : {1, 7, 64})
        for (const placement where : support::placements) {
          device_tensor y(ctx, rows, cols, where);
          fill_normal(ctx, stream, y.view());
          CHECK(support::near(y.values(), normal_numbers(stream, rows, cols), 1e-6));
          CHECK(y.gaps_kept());
        }
  }

  TEST_CASE("seed and step come from the step values where there are any") {
    cuda_backend ctx;
    gpu::step_values now;
    now.seed = 77;
    now.step = 9;
    on_device<gpu::step_values> values(ctx, std::vector<gpu::step_values>{now});
    ctx.read_step_values(values.data());
    device_tensor y(ctx, 3, 8);
    random_stream stream{.seed = 5, .step = 1, .layer = 3, .site = random_site::router_noise};
    fill_normal(ctx, stream, y.view());
    stream.seed = now.seed;
    stream.step = now.step;
    CHECK(support::near(y.values(), normal_numbers(stream, 3, 8), 1e-6));
  }

  TEST_CASE("noisy logits, load and their gradients agree with double precision") {
    cuda_backend ctx;
    for (const load_indicator indicator : {load_indicator::noisy_logit, load_indicator::llama_moe})
      for (const index_t experts : {2, 4, 8, 17})
        for (const index_t tokens : {20, 300, 0}) {
          for (const bool masked : {false, true}) {
            if (tokens == 0 && masked) continue;
            CAPTURE(experts);
            CAPTURE(tokens);
            const int k = experts > 2 ? 2 : 1;
            const auto cleans = support::normal_floats(tokens * experts, 1),
                       raws = support::normal_floats(tokens * experts, 2, 3),
                       noises = support::normal_floats(tokens * experts, 3),
                       dloads = support::normal_floats(experts, 4);
            reference::router_options options;
            options.kind = reference::router_kind::noisy_top_k;
            options.top_k = k;
            options.indicator = indicator == load_indicator::llama_moe
                                    ? reference::load_indicator::llama_moe
                                    : reference::load_indicator::noisy_logit;
            // Rows that do not count are left out of the reference.
            std::vector<std::uint8_t> flags;
            for (index_t t = 0; masked && t < tokens; ++t) flags.push_back(t % 3 != 1);
            const auto counted = [&](index_t t) { return !masked || t % 3 != 1; };
            const auto kept = [&](const std::vector<float>& x) {
              std::vector<double> rows;
              for (index_t t = 0; t < tokens; ++t)
                if (counted(t))
                  rows.insert(rows.end(), x.begin() + t * experts, x.begin() + (t + 1) * experts);
              const auto count = static_cast<index_t>(rows.size()) / experts;
              return reference::matrix(count, experts, rows);
            };
            const auto route = reference::route_logits(options, kept(cleans), kept(noises), kept(raws));
            reference::matrix load(1, experts);
            reference::logit_gradients g;
            if (tokens > 0) {
              load = reference::noisy_load(route);
              reference::noisy_load_backward(
                  route, reference::matrix(1, experts, std::vector<double>(dloads.begin(), dloads.end())), g);
            }

            device_tensor clean(ctx, tokens, experts, cleans), raw(ctx, tokens, experts, raws),
                noise(ctx, tokens, experts, noises), noisy(ctx, tokens, experts),
                dclean(ctx, tokens, experts), draw(ctx, tokens, experts), dnoisy(ctx, tokens, experts);
            on_device<std::uint8_t> valid(ctx, flags);
            on_device<float> dload(ctx, dloads);
            noisy_logits(ctx, clean.in(), raw.in(), noise.in(), 0.01f, noisy.view());
            CHECK(noisy.gaps_kept());
            const auto kept_of = [&](const device_tensor& x) { return kept(x.values()).values; };
            CHECK(support::near(kept_of(noisy), route.noisy_logits.values, 1e-6));
            noisy_load_inputs<device_space> in;
            in.clean = clean.in();
            in.raw = raw.in();
            in.noise = noise.in();
            in.noisy = noisy.in();
            in.k = k;
            in.epsilon = 0.01f;
            in.indicator = indicator;
            in.valid = valid.view();
            on_device<double> sums(ctx, std::vector<double>(static_cast<std::size_t>(experts), 1.0));
            support::with_device_scratch(
                [&](workspace<device_space>& ws) { noisy_load(ctx, in, sums.view(), ws); });
            std::vector<double> added;
            for (const double sum : sums.values()) added.push_back(sum - 1.0);
            CHECK(support::near(added, load.values, 1e-5));
            noisy_load_backward(ctx, in, dload.view(), dclean.view(), draw.view(), dnoisy.view());
            noisy_logits_backward(ctx, raw.in(), noise.in(), dnoisy.in(), dclean.view(), draw.view());
            CHECK((dclean.gaps_kept() && draw.gaps_kept() && dnoisy.gaps_kept()));
            // Densities with a deviation of 0.01 amplify the rounding of logits a hundredfold.
            CHECK(support::near(kept_of(dclean), g.logits.values, 2e-4));
            CHECK(support::near(kept_of(draw), g.deviation_raw.values, 2e-4));
            const auto all = dclean.values();
            for (index_t i = 0; i < tokens * experts; ++i)
              if (!counted(i / experts)) CHECK(all[static_cast<std::size_t>(i)] == 0.0f);
          }
        }
  }

  TEST_CASE("importance counts gates, load counts slots, dropped slots count nowhere") {
    cuda_backend ctx;
    on_device<std::int32_t> expert(ctx, std::vector<std::int32_t>{0, 2, 1, 0, 3, 2}), counted(ctx, 6),
        token(ctx, std::vector<std::int32_t>{0, 0, 1, 1, 2, 2});
    on_device<std::uint8_t> valid(ctx, std::vector<std::uint8_t>{1, 0, 1});
    on_device<float> gate(ctx, std::vector<float>{0.5f, 0.5f, 1.0f, 0.0f, 0.7f, 0.25f});
    on_device<double> importance(ctx, std::vector<double>{1, 0, 0}), load(ctx, std::vector<double>{0, 0, 1});
    gate_totals(ctx, expert.view(), gate.view(), importance.view(), load.view());
    CHECK(importance.values() == std::vector<double>{1.5, 1.0, 0.75});
    CHECK(load.values() == std::vector<double>{1, 1, 3});
    on_device<float> d(ctx, std::vector<float>{1, 2, 3}), dgate(ctx, std::vector<float>(6, 10.0f));
    importance_backward(ctx, expert.view(), d.view(), dgate.view());
    CHECK(dgate.values() == std::vector<float>{11, 13, 12, 11, 10, 13});
    mask_slots(ctx, token.view(), expert.view(), valid.view(), 3, counted.view());
    CHECK(counted.values() == std::vector<std::int32_t>{0, 2, 3, 3, 3, 2});
  }

  TEST_CASE("the squared variation and its gradient follow the formula") {
    cuda_backend ctx;
    for (const index_t n : {1, 2, 5, 16, 700}) {
      const std::vector<double> values = support::uniform_doubles(n, 3, 0.5, 9);
      const auto exact = reference::cv_squared(reference::matrix(1, n, values));
      on_device<double> v(ctx, values), variation(ctx, std::vector<double>{-1.0});
      on_device<float> d(ctx, std::vector<float>(static_cast<std::size_t>(n), 5.0f));
      cv_squared_gradient(ctx, v.view(), 2.0, d.view());
      cv_squared(ctx, v.view(), variation.view());
      CHECK(variation.values()[0] == doctest::Approx(exact.value));
      CHECK(support::near(d.values(), reference::scaled(exact.derivative, 2).values, 1e-6));
    }
  }
}

}  // namespace
