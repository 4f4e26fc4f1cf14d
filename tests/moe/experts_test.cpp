// SPDX-License-Identifier: Apache-2.0
#include "pesc/moe/experts.hpp"

#include <cmath>
#include <vector>

#include <doctest/doctest.h>

#include "moe/stage_test.hpp"
#include "pesc/moe/dispatch.hpp"

namespace {

using pesc::index_t;
using support::numbers;

constexpr index_t tokens = 6;
constexpr index_t experts = 4;
constexpr index_t hidden = 10;
constexpr index_t rank = 3;
constexpr pesc::moe_shape shape{hidden, 8, experts, 2, rank, 0};

template <class Act>
using expert_of = pesc::adapter_expert<rank, Act>;

static_assert(pesc::Expert<expert_of<pesc::relu>>);
static_assert(pesc::Expert<pesc::adapter_expert<pesc::dynamic>>);
static_assert(!pesc::Expert<pesc::top_k_router<2>>);

/// Two slots a token, assigned by `expert`; `experts` drops one.
template <class Act>
struct fixture {
  using kind = expert_of<Act>;
  using parameters = typename kind::template parameters<pesc::host_space>;

  support::plain_context ctx;
  std::vector<std::int32_t> token, expert;
  numbers h{tokens, hidden, 1}, e{2 * tokens, hidden, 2}, dy{tokens, hidden, 3}, dh{tokens, hidden, 4};
  numbers gate{1, 2 * tokens, 5}, dgate{1, 2 * tokens, 6};
  numbers down{experts * rank, hidden, 7}, up{experts * hidden, rank, 8};
  numbers ddown{experts * rank, hidden, 9}, dup{experts * hidden, rank, 10};
  pesc::moe_options options{.expert_scale = 0.5f};
  pesc::moe_run run{.training = true};
  pesc::buffer<std::byte> group_memory, state_memory;
  pesc::slot_groups<> groups = support::keep(group_memory, [](pesc::workspace<>& ws) {
    return pesc::carve_groups(ws, tokens, experts, 2 * tokens);
  });
  typename kind::template state<pesc::host_space> state =
      support::keep(state_memory, [](pesc::workspace<>& ws) {
        return kind::template state<pesc::host_space>::carve(ws, shape, 2 * tokens);
      });

  explicit fixture(std::vector<std::int32_t> assigned) : expert{std::move(assigned)} {
    for (std::int32_t s = 0; s < 2 * tokens; ++s) token.push_back(s / 2);
    pesc::routing_state<> routing;
    routing.token = {token.data(), 2 * tokens};
    routing.expert = {expert.data(), 2 * tokens};
    support::run_stage([&](pesc::workspace<>& ws) { pesc::dispatch(ctx, routing, groups, ws); });
  }

  [[nodiscard]] parameters weights() {
    return {{down.view().data, experts, rank, hidden}, {up.view().data, experts, hidden, rank}};
  }
  [[nodiscard]] parameters gradients() {
    return {{ddown.view().data, experts, rank, hidden}, {dup.view().data, experts, hidden, rank}};
  }

  void forward() {
    support::run_stage([&](pesc::workspace<>& ws) {
      experts_forward(ctx, kind{}, h.read(), groups, weights(), state, e.view(), options, run, ws);
    });
  }
  void backward() {
    support::run_stage([&](pesc::workspace<>& ws) {
      experts_backward(ctx, kind{}, h.read(), groups, pesc::as_const(gate.list()), weights(), state,
                       dy.read(), dgate.list(), dh.view(), gradients(), options, run, ws);
    });
  }

  /// e of one kept row in double.
  [[nodiscard]] std::vector<double> row_of(index_t row) {
    const index_t t = groups.token_of[row];
    index_t x = 0;
    while (row >= groups.expert_offsets[x + 1]) ++x;
    std::vector<double> out(hidden, 0.0);
    for (index_t r = 0; r < rank; ++r) {
      double z = 0;
      for (index_t i = 0; i < hidden; ++i)
        z += static_cast<double>(weights().down[x](r, i)) * static_cast<double>(h(t, i));
      const auto c = static_cast<double>(Act::value(static_cast<float>(z)));
      for (index_t i = 0; i < hidden; ++i)
        out[static_cast<std::size_t>(i)] += 0.5 * static_cast<double>(weights().up[x](i, r)) * c;
    }
    return out;
  }

  /// Σ gate <dy, e>, the number whose gradients backward gives.
  [[nodiscard]] double objective() {
    double sum = 0;
    for (index_t row = 0; row < groups.expert_offsets[experts]; ++row) {
      const auto out = row_of(row);
      for (index_t i = 0; i < hidden; ++i)
        sum += static_cast<double>(gate.list()[groups.slots[row]]) *
               static_cast<double>(dy(groups.token_of[row], i)) * out[static_cast<std::size_t>(i)];
    }
    return sum;
  }

  /// Central differences of the objective.
  [[nodiscard]] std::vector<double> differences(pesc::vector_view<float> values) {
    std::vector<double> out;
    for (float& value : values) {
      const float kept = value;
      constexpr float step = 1.0f / 256;
      value = kept + step;
      const double above = objective();
      value = kept - step;
      const double below = objective();
      value = kept;
      out.push_back((above - below) / (2 * static_cast<double>(step)));
    }
    return out;
  }
};

const std::vector<std::int32_t> mixed{0, 1, 3, 0, 1, 4,
                                      0, 3, 3, 1, 4, 4};  // expert 2 is empty, three slots are dropped

}  // namespace

TEST_SUITE("moe/experts") {
  TEST_CASE_TEMPLATE("every kept row is s Up(act(Down(h))) of its token and expert", Act, pesc::gelu,
                     pesc::relu, pesc::silu) {
    for (const auto& assigned : {mixed, std::vector<std::int32_t>(12, 2)}) {
      fixture<Act> f(assigned);
      f.forward();
      const index_t kept = f.groups.expert_offsets[experts];
      REQUIRE(kept > 0);
      for (index_t row = 0; row < kept; ++row) {
        const std::vector<float> actual(f.e.view().row(row), f.e.view().row(row) + hidden);
        CHECK(support::near(actual, f.row_of(row), 1e-5));
      }
    }
  }

  TEST_CASE_TEMPLATE("backward gives the gradients of the gated sum", Act, pesc::gelu, pesc::silu) {
    fixture<Act> f(mixed);
    const auto dh = f.dh.values();
    const auto ddown = f.ddown.values();
    const auto dup = f.dup.values();
    f.forward();
    f.backward();
    const auto without = [](const std::vector<float>& after, const std::vector<float>& before) {
      std::vector<float> out = after;
      for (std::size_t i = 0; i < out.size(); ++i) out[i] -= before[i];
      return out;
    };
    CHECK(support::near(f.dgate.values(), f.differences(f.gate.list()), 1e-3));  // written, not added
    CHECK(support::near(without(f.dh.values(), dh), f.differences(f.h.list()), 1e-3));
    CHECK(support::near(without(f.ddown.values(), ddown), f.differences(f.down.list()), 1e-3));
    CHECK(support::near(without(f.dup.values(), dup), f.differences(f.up.list()), 1e-3));
  }

  TEST_CASE("an expert without a token keeps its gradient to the bit, and a dropped slot's gate gets none") {
    fixture<pesc::gelu> f(mixed);
    const numbers ddown = f.ddown;
    const numbers dup = f.dup;
    f.forward();
    f.backward();
    for (index_t i = 0; i < rank * hidden; ++i) {
      CHECK(f.ddown.values()[static_cast<std::size_t>(2 * rank * hidden + i)] ==
            ddown.values()[static_cast<std::size_t>(2 * rank * hidden + i)]);
      CHECK(f.dup.values()[static_cast<std::size_t>(2 * rank * hidden + i)] ==
            dup.values()[static_cast<std::size_t>(2 * rank * hidden + i)]);
    }
    for (index_t s = 0; s < 12; ++s)
      if (mixed[static_cast<std::size_t>(s)] == experts) CHECK(f.dgate.list()[s] == 0.0f);
  }

  TEST_CASE("dropout zeroes inputs of a slot with the same mask in both directions, and only in training") {
    fixture<pesc::gelu> f(mixed);
    f.options.adapter_dropout = 0.5f;
    f.run = {.training = false};
    f.forward();
    const auto plain = f.e.values();
    f.options.adapter_dropout = 0.0f;
    f.forward();
    CHECK(f.e.values() == plain);

    // The bottleneck shows the mask: kept inputs count twice.
    f.options.adapter_dropout = 0.5f;
    f.run = {.training = true, .seed = 3, .step = 4, .layer = 5};
    f.forward();
    const pesc::random_stream stream = f.run.stream(pesc::random_site::adapter_dropout);
    for (index_t row = 0; row < f.groups.expert_offsets[experts]; ++row) {
      index_t x = 0;
      while (row >= f.groups.expert_offsets[x + 1]) ++x;
      for (index_t r = 0; r < rank; ++r) {
        double z = 0;
        for (index_t i = 0; i < hidden; ++i)
          if (stream.uniform(static_cast<std::uint32_t>(f.groups.slots[row]),
                             static_cast<std::uint32_t>(i)) >= 0.5f)
            z += 2 * static_cast<double>(f.weights().down[x](r, i)) *
                 static_cast<double>(f.h(f.groups.token_of[row], i));
        CHECK(static_cast<double>(f.state.z(row, r)) == doctest::Approx(z).epsilon(1e-4));
      }
    }
  }
}
