// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include "gpu/result_bits.hpp"
#include "gpu/story_run.hpp"
#include "pesc/cuda.cuh"
#include "support/near.hpp"

namespace {

TEST_SUITE("gpu/model") {
  TEST_CASE("stories260K is crafted, tuned and tells as on the CPU") {
    pesc::cuda_backend ctx;
    const support::story there = support::tell_story(ctx, PESC_EXAMPLE_DATA);
    const support::story here = support::tell_story_on_cpu(PESC_EXAMPLE_DATA);
    support::note_bits(there.losses);
    support::note_bits(there.first_logits);
    support::note_bits(there.trainables);
    // Products are float on both sides, so the steps differ by the order of sums alone.
    CHECK(support::near(there.losses, here.losses, 1e-5));
    CHECK(support::near(there.balances, here.balances, 1e-5));
    CHECK(support::near(there.norms, here.norms, 1e-4));
    CHECK(there.held_out == doctest::Approx(here.held_out).epsilon(1e-4));
    CHECK(there.load == here.load);
    CHECK(support::near(there.first_logits, here.first_logits, 1e-3));
    CHECK(there.text == here.text);
    // Where a gradient is nearly zero, the sign that AdamW follows is rounding error.
    CHECK(support::near(there.trainables, here.trainables, 2e-2));
    CHECK(here.losses.back() < here.losses.front());
  }
}

}  // namespace
