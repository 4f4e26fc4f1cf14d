// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include <doctest/doctest.h>

#include "support/near.hpp"
#include "support/reference.hpp"

namespace {

using namespace reference;

TEST_CASE("the first step of AdamW moves by the learning rate against the sign of the gradient") {
  matrix parameter(1, 3, {1, 1, 1});
  adamw_state state;
  adamw_step(parameter, matrix(1, 3, {5, -0.1, 0}), state, 0.01, {});
  CHECK(support::near(parameter, std::vector<double>{0.99, 1.01, 1}, 1e-8));
}

TEST_CASE("weight decay acts before the update and without any gradient") {
  matrix parameter(1, 1, 2.0);
  adamw_state state;
  adamw_options options;
  options.weight_decay = 0.1;
  adamw_step(parameter, matrix(1, 1), state, 0.5, options);
  CHECK(parameter[0] == 2 * (1 - 0.5 * 0.1));
}

TEST_CASE("a parameter keeps moving by its momentum when the gradient stops") {
  matrix parameter(1, 1, 0.0);
  adamw_state state;
  adamw_step(parameter, matrix(1, 1, 1.0), state, 0.1, {});
  adamw_step(parameter, matrix(1, 1), state, 0.1, {});
  const double m = 0.9 * 0.1 / (1 - 0.81), v = 0.999 * 0.001 / (1 - 0.999 * 0.999);
  CHECK(std::fabs(parameter[0] + 0.1 + 0.1 * m / std::sqrt(v)) < 1e-8);
  CHECK(state.step == 2);
}

TEST_CASE("clipping shortens long gradients together and leaves short ones") {
  list<matrix> gradients{matrix(1, 1, 3.0), matrix(1, 1, 4.0)};
  CHECK(clip_by_global_norm(gradients, 10) == 5);
  CHECK(gradients[0][0] == 3);
  CHECK(clip_by_global_norm(gradients, 1) == 5);
  CHECK(std::fabs(gradients[0][0] - 0.6) < 1e-6);
  CHECK(std::fabs(global_norm(gradients) - 1) < 1e-6);
}

TEST_CASE("schedules rise during warm-up and end at their lowest value") {
  CHECK(constant_schedule(0, 4) == 0);
  CHECK(constant_schedule(1, 4) == 0.25);
  CHECK(constant_schedule(4, 4) == 1);
  CHECK(linear_schedule(4, 4, 24) == 1);
  CHECK(linear_schedule(14, 4, 24) == 0.5);
  CHECK(linear_schedule(30, 4, 24) == 0);
  CHECK(cosine_schedule(4, 4, 24) == 1);
  CHECK(std::fabs(cosine_schedule(14, 4, 24) - 0.5) < 1e-15);
  CHECK(std::fabs(cosine_schedule(24, 4, 24, 0.1) - 0.1) < 1e-15);
  CHECK(constant_schedule(0, 0) == 1);
}

}  // namespace
