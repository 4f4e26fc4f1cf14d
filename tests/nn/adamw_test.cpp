// SPDX-License-Identifier: Apache-2.0
#include "pesc/nn/adamw.hpp"

#include <doctest/doctest.h>

#include "support/message_of.hpp"

namespace {

using namespace pesc;

TEST_CASE("coefficients carry bias corrections and decay of their step") {
  const adamw_options options{.beta1 = 0.9, .beta2 = 0.99, .epsilon = 1e-6, .weight_decay = 0.1};
  const adamw_coefficients first = adamw_step_coefficients(options, 0.01, 1);
  CHECK(first.step_size == doctest::Approx(0.01 / 0.1));
  CHECK(first.root_correction == doctest::Approx(0.1));
  CHECK(first.decay == doctest::Approx(0.999));
  CHECK(first.gradient_scale == 1.0f);
  const adamw_coefficients later = adamw_step_coefficients(options, 0.01, 100, 0.25);
  CHECK(later.step_size == doctest::Approx(0.01 / (1 - std::pow(0.9, 100))));
  CHECK(later.root_correction == doctest::Approx(std::sqrt(1 - std::pow(0.99, 100))));
  CHECK(later.gradient_scale == 0.25f);
  const adamw_coefficients last = adamw_step_coefficients(options, 0.01, index_t{1} << 40);
  CHECK(last.step_size == doctest::Approx(0.01));
  CHECK(last.root_correction == 1.0f);
}

TEST_CASE("step 0 is refused") {
  CHECK(
      support::contains(support::message_of<shape_error>([] { adamw_step_coefficients({}, 0.1, 0); }), "0"));
}

TEST_CASE("long gradients are shortened to the limit, short ones kept") {
  CHECK(clip_factor(10, 2.5) == doctest::Approx(0.25));
  CHECK(clip_factor(1, 2.5) == 1);
  CHECK(clip_factor(1e30, 0) == 1);
  CHECK(clip_factor(0, 1) == 1);
}

}  // namespace
