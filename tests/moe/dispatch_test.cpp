// SPDX-License-Identifier: Apache-2.0
#include "pesc/moe/dispatch.hpp"

#include <vector>

#include <doctest/doctest.h>

#include "moe/stage_test.hpp"

namespace {

using pesc::index_t;
using list = std::vector<std::int32_t>;

struct grouped {
  list token, expert, expert_offsets, slots, slot_of, token_of, token_offsets, token_slots;
};

/// Groups the assignments; an expert of `experts` is dropped.
grouped group(index_t tokens, index_t experts, list token, list expert) {
  support::plain_context ctx;
  pesc::buffer<std::byte> memory;
  const auto slots = static_cast<index_t>(token.size());
  const auto groups = support::keep(
      memory, [&](pesc::workspace<>& ws) { return pesc::carve_groups(ws, tokens, experts, slots); });
  pesc::routing_state<> routing;
  routing.token = {token.data(), slots};
  routing.expert = {expert.data(), slots};
  support::run_stage([&](pesc::workspace<>& ws) { pesc::dispatch(ctx, routing, groups, ws); });
  const auto copy = [](auto view) { return list(view.begin(), view.end()); };
  return {token,
          expert,
          copy(groups.expert_offsets),
          copy(groups.slots),
          copy(groups.slot_of),
          copy(groups.token_of),
          copy(groups.token_offsets),
          copy(groups.token_slots)};
}

}  // namespace

TEST_SUITE("moe/dispatch") {
  TEST_CASE("the slots of four tokens are ordered by expert and by token") {
    const grouped g = group(4, 4, {0, 0, 1, 1, 2, 2, 3, 3}, {1, 0, 0, 1, 0, 3, 1, 2});
    CHECK(g.slots == list{1, 2, 4, 0, 3, 6, 7, 5});
    CHECK(g.expert_offsets == list{0, 3, 6, 7, 8});
    CHECK(g.slot_of == list{3, 0, 1, 4, 2, 7, 5, 6});
    CHECK(g.token_of == list{0, 1, 2, 0, 1, 3, 3, 2});
    CHECK(g.token_offsets == list{0, 2, 4, 6, 8});
    CHECK(g.token_slots == list{0, 1, 2, 3, 4, 5, 6, 7});
  }

  TEST_CASE(
      "random assignments, some of them dropped and in any order of tokens, keep every order's promise") {
    support::generator random(1);
    for (int round = 0; round < 50; ++round) {
      const index_t tokens = 1 + random.below(12);
      const index_t experts = 1 + random.below(7);
      const index_t slots = random.below(30);
      list token, expert;
      for (index_t s = 0; s < slots; ++s) {
        token.push_back(static_cast<std::int32_t>(random.below(tokens)));
        expert.push_back(static_cast<std::int32_t>(random.below(experts + 1)));
      }
      const grouped g = group(tokens, experts, token, expert);
      const auto at = [](const list& values, auto i) { return values[static_cast<std::size_t>(i)]; };
      REQUIRE(g.expert_offsets.front() == 0);
      index_t kept = 0;
      for (index_t e = 0; e < experts; ++e)
        for (auto row = at(g.expert_offsets, e); row < at(g.expert_offsets, e + 1); ++row, ++kept) {
          const auto slot = at(g.slots, row);
          REQUIRE(at(expert, slot) == e);
          REQUIRE(at(g.slot_of, slot) == row);
          REQUIRE(at(g.token_of, row) == at(token, slot));
          if (row > at(g.expert_offsets, e)) REQUIRE(slot > at(g.slots, row - 1));  // stable
        }
      index_t dropped = 0;
      for (index_t s = 0; s < slots; ++s) {
        REQUIRE((at(g.slot_of, s) < 0) == (at(expert, s) == experts));
        dropped += at(g.slot_of, s) < 0 ? 1 : 0;
      }
      CHECK(kept + dropped == slots);
      REQUIRE(at(g.token_offsets, tokens) == slots);
      for (index_t t = 0; t < tokens; ++t)
        for (auto i = at(g.token_offsets, t); i < at(g.token_offsets, t + 1); ++i) {
          REQUIRE(at(token, at(g.token_slots, i)) == t);
          if (i > at(g.token_offsets, t)) REQUIRE(at(g.token_slots, i) > at(g.token_slots, i - 1));
        }
    }
  }

  TEST_CASE("all tokens to one expert, all dropped, and no token at all") {
    const grouped one = group(3, 4, {0, 1, 2}, {2, 2, 2});
    CHECK(one.expert_offsets == list{0, 0, 0, 3, 3});
    CHECK(one.slots == list{0, 1, 2});
    const grouped dropped = group(3, 2, {0, 1, 2}, {2, 2, 2});
    CHECK(dropped.expert_offsets == list{0, 0, 0});
    CHECK(dropped.slot_of == list{-1, -1, -1});
    const grouped none = group(0, 3, {}, {});
    CHECK(none.expert_offsets == list{0, 0, 0, 0});
    CHECK(none.token_offsets == list{0});
  }
}
