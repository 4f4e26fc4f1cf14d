// SPDX-License-Identifier: Apache-2.0
#include "pesc/model/sampling.hpp"

#include <cmath>
#include <limits>

#include <doctest/doctest.h>

namespace {

const std::vector<float> logits{0.5f, 3.0f, 3.0f, -1.0f, 2.0f};

/// \brief How often each token comes in many draws.
std::vector<double> shares(pesc::sampling_options options, int draws = 20000) {
  pesc::sampler sampler(options);
  std::vector<double> out(logits.size());
  for (int i = 0; i < draws; ++i)
    out[static_cast<std::size_t>(sampler.draw(std::span<const float>(logits), i))] += 1.0 / draws;
  return out;
}

}  // namespace

TEST_SUITE("model/sampling") {
  TEST_CASE("temperature 0 takes the most likely token, the lower id on a tie") {
    pesc::sampler sampler({});
    CHECK(sampler.draw(std::span<const float>(logits), 0) == 1);
  }

  TEST_CASE("draws follow the softmax of the logits over the temperature") {
    for (const double temperature : {0.7, 1.0, 2.0}) {
      double sum = 0;
      for (const float l : logits) sum += std::exp(static_cast<double>(l) / temperature);
      const auto found = shares({.temperature = temperature, .seed = 3});
      for (std::size_t i = 0; i < logits.size(); ++i)
        CHECK(found[i] == doctest::Approx(std::exp(static_cast<double>(logits[i]) / temperature) / sum)
                              .epsilon(0.05)
                              .scale(0.2));
    }
  }

  TEST_CASE("top-k leaves only the k likeliest tokens") {
    const auto found = shares({.temperature = 1.0, .top_k = 2});
    CHECK(found[1] + found[2] == doctest::Approx(1.0));
    CHECK(found[1] == doctest::Approx(0.5).epsilon(0.05));
  }

  TEST_CASE("top-p leaves the likeliest tokens that reach the probability") {
    // Tokens 1 and 2 have 0.81 of the probability together, 0.405 each.
    CHECK(shares({.temperature = 1.0, .top_p = 0.4})[1] == doctest::Approx(1.0));
    const auto two = shares({.temperature = 1.0, .top_p = 0.8});
    CHECK(two[1] > 0.4);
    CHECK(two[2] > 0.4);
    CHECK(two[4] == 0.0);
    CHECK(shares({.temperature = 1.0, .top_p = 0.9})[4] > 0.0);
  }

  TEST_CASE("a draw depends on seed and position only") {
    pesc::sampler a({.temperature = 1.5, .seed = 9});
    pesc::sampler b({.temperature = 1.5, .seed = 9});
    static_cast<void>(a.draw(std::span<const float>(logits), 0));
    for (int i = 1; i < 100; ++i)
      CHECK(a.draw(std::span<const float>(logits), i) == b.draw(std::span<const float>(logits), i));
    CHECK(shares({.temperature = 1.5, .seed = 9}) != shares({.temperature = 1.5, .seed = 10}));
  }

  TEST_CASE("a NaN is never drawn, and nothing finite is an error") {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const std::vector<float> some{nan, 1.0f, nan, 0.5f};
    for (const double temperature : {0.0, 1.0}) {
      pesc::sampler sampler({.temperature = temperature});
      for (int i = 0; i < 200; ++i) CHECK(sampler.draw(std::span<const float>(some), i) % 2 == 1);
      const std::vector<float> none{nan, nan};
      CHECK_THROWS_AS(static_cast<void>(sampler.draw(std::span<const float>(none), 0)), pesc::numeric_error);
    }
  }

  TEST_CASE("options outside their range are refused") {
    CHECK_THROWS_AS(pesc::sampler({.temperature = -0.1}), pesc::shape_error);
    CHECK_THROWS_AS(pesc::sampler({.temperature = std::nan("")}), pesc::shape_error);
    CHECK_THROWS_AS(pesc::sampler({.top_k = -1}), pesc::shape_error);
    CHECK_THROWS_AS(pesc::sampler({.top_p = 0.0}), pesc::shape_error);
    CHECK_THROWS_AS(pesc::sampler({.top_p = 1.1}), pesc::shape_error);
  }
}
