// SPDX-License-Identifier: Apache-2.0
#include "pesc/moe/shape.hpp"

#include <doctest/doctest.h>

TEST_SUITE("moe/shape") {
  TEST_CASE("a call's random streams carry its seed, step and layer") {
    const pesc::moe_run run{.training = true, .seed = 11, .step = 12, .layer = 13};
    const pesc::random_stream stream = run.stream(pesc::random_site::lora_dropout, 2);
    CHECK(stream.seed == 11);
    CHECK(stream.step == 12);
    CHECK(stream.layer == 13);
    CHECK(stream.site == pesc::random_site::lora_dropout);
    CHECK(stream.part == 2);
    CHECK(run.stream(pesc::random_site::adapter_dropout).uniform(3, 4) !=
          run.stream(pesc::random_site::router_noise).uniform(3, 4));
  }

  TEST_CASE("a gradient of the losses is active where a coefficient and the fractions are there") {
    const float fractions[2] = {1, 1};
    pesc::balance_gradient<> g;
    CHECK_FALSE(g.active());
    g.scale = 1;
    CHECK_FALSE(g.active());
    g.fractions = {fractions, 2};
    CHECK(g.active());
    g.scale = 0;
    CHECK_FALSE(g.active());
    g.z_scale = 1;
    CHECK(g.active());
  }
}
