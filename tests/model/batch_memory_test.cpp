// SPDX-License-Identifier: Apache-2.0
#include "pesc/model/batch_memory.hpp"

#include <vector>

#include <doctest/doctest.h>

#include "pesc/cpu/transfer.hpp"

TEST_SUITE("model/batch_memory") {
  TEST_CASE("an input is copied, shorter ones use a part, and what is empty stays empty") {
    pesc::cpu_backend ctx(1);
    pesc::batch_memory memory(4);
    std::vector<std::int32_t> ids{5, 6, 7}, positions{0, 1, 2}, targets{6, 7, -1};
    const std::vector<pesc::attention_span> spans{{0, 3, 0, 0}};
    const auto there =
        memory.set(ctx, {{ids.data(), 3}, {positions.data(), 3}, {spans.data(), 1}, {targets.data(), 3}});
    CHECK(there.ids.data != ids.data());
    CHECK(std::vector(there.ids.begin(), there.ids.end()) == ids);
    CHECK(std::vector(there.positions.begin(), there.positions.end()) == positions);
    CHECK(std::vector(there.targets.begin(), there.targets.end()) == targets);
    CHECK(there.spans.size == 1);
    CHECK(there.spans[0].query_end == 3);
    CHECK(there.valid.empty());
  }

  TEST_CASE("an input for counting has tokens but no memory") {
    const auto input = pesc::model_input<>::counting(7);
    CHECK(input.ids.size == 7);
    CHECK(input.targets.size == 7);
    CHECK(input.ids.data == nullptr);
    CHECK(input.spans.empty());
  }
}
