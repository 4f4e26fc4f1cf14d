// SPDX-License-Identifier: Apache-2.0
#include "pesc/cpu/routing.hpp"

#include "cpu/op_test.hpp"
#include "support/gate_rules.hpp"

namespace {

using namespace pesc;
using support::all_gates;
using support::exact_options;
using support::tensor;

template <class T>
vector_view<const T> read(const std::vector<T>& v) {
  return {v.data(), static_cast<index_t>(v.size())};
}
template <class T>
vector_view<T> write(std::vector<T>& v) {
  return {v.data(), static_cast<index_t>(v.size())};
}

struct choice {
  std::vector<std::int32_t> expert;
  std::vector<float> gate;
};

choice choose(cpu_backend& ctx, const tensor& logits, int k, const gate_options& options) {
  const auto slots = static_cast<std::size_t>(logits.view().rows * k);
  choice c{std::vector<std::int32_t>(slots), std::vector<float>(slots)};
  top_k_softmax(ctx, logits.view(), k, options, write(c.expert), write(c.gate));
  return c;
}

TEST_CASE("top_k_softmax and its gradient agree with double precision") {
  struct {
    index_t experts;
    int k;
  } const shapes[] = {{1, 1}, {4, 1}, {8, 2}, {6, 6}, {16, 4}, {60, 4}, {128, 16}};
  for (const auto shape : shapes)
    for (const gate_options& options : all_gates)
      for (const index_t tokens : {0, 1, 33, 301}) {
        CAPTURE(shape.experts);
        CAPTURE(shape.k);
        const tensor logits = tensor::random(tokens, shape.experts, 1, 2);
        const auto exact = reference::route_logits(exact_options(options, shape.k), logits.exact());
        const std::vector<float> dgate = support::normal_floats(tokens * shape.k, 2);
        std::vector<double> expected;
        for (const auto& a : exact.assignments) expected.push_back(a.gate);
        const tensor start = tensor::random(tokens, shape.experts, 3);
        reference::list<double> dgates(std::vector<double>(dgate.begin(), dgate.end()));
        reference::matrix d = reference::gates_backward(exact, dgates).logits;
        reference::add_to(d, start.exact());
        expected.insert(expected.end(), d.values.begin(), d.values.end());
        support::check_on_every_context(
            [&](cpu_backend& ctx) {
              const choice c = choose(ctx, logits, shape.k, options);
              bool same = true;
              for (index_t s = 0; s < tokens * shape.k; ++s)
                same &= c.expert[static_cast<std::size_t>(s)] == exact.assignments[s].expert;
              CHECK(same);
              tensor dlogits = start;
              top_k_softmax_backward(ctx, logits.view(), shape.k, options, read(c.expert), read(c.gate),
                                     read(dgate), dlogits.view());
              CHECK(dlogits.gaps_kept());
              std::vector<float> result = c.gate;
              const std::vector<float> back = dlogits.values();
              result.insert(result.end(), back.begin(), back.end());
              return result;
            },
            expected, 2e-6);
      }
}

TEST_CASE("only gates without renormalisation pass a gradient to experts that were not chosen") {
  tensor logits(1, 4);
  const float row[] = {1, 2, 0.5f, -1};
  std::copy_n(row, 4, logits.view().row(0));
  const std::vector<float> dgate = {1, 0};
  for (const gate_options& options : all_gates) {
    cpu_backend ctx(1);
    const choice c = choose(ctx, logits, 2, options);
    CHECK(c.expert == std::vector<std::int32_t>{1, 0});
    CHECK(c.gate[0] == doctest::Approx(options.renormalize ? 0.731058579 : 0.609460038));
    CHECK(c.gate[1] == doctest::Approx(options.renormalize ? 0.268941421 : 0.224207818));
    tensor d(1, 4);
    top_k_softmax_backward(ctx, logits.view(), 2, options, read(c.expert), read(c.gate), read(dgate),
                           d.view());
    CHECK((d.view()(0, 2) != 0.0f) == !options.renormalize);
    CHECK((d.view()(0, 3) != 0.0f) == !options.renormalize);
  }
}

TEST_CASE("no logits lead to an expert out of range or a gate out of [0, 1]") {
  const float inf = INFINITY;
  const float bad[] = {NAN, inf, -inf, 0.0f, -0.0f, 3e38f, -3e38f, 1.0f};
  support::generator g(5);
  for (int round = 0; round < 300; ++round) {
    const index_t experts = 1 + g.below(20);
    const int k = static_cast<int>(1 + g.below(std::min<index_t>(experts, max_top_k)));
    tensor logits(4, experts);
    for (index_t t = 0; t < 4; ++t)
      for (index_t e = 0; e < experts; ++e) logits.view()(t, e) = bad[g.below(t == 0 ? 1 : 8)];
    for (const gate_options& options : all_gates) {
      static cpu_backend ctx(1);
      const choice c = choose(ctx, logits, k, options);
      for (index_t t = 0; t < 4; ++t) {
        std::vector<bool> seen(static_cast<std::size_t>(experts));
        for (int j = 0; j < k; ++j) {
          const auto s = static_cast<std::size_t>(t * k + j);
          REQUIRE(c.expert[s] >= 0);
          REQUIRE(c.expert[s] < experts);
          CHECK_FALSE(seen[static_cast<std::size_t>(c.expert[s])]);
          seen[static_cast<std::size_t>(c.expert[s])] = true;
          CHECK(c.gate[s] >= 0.0f);
          CHECK(c.gate[s] <= 1.0f);
        }
      }
      // The first row holds NaN alone.
      for (int j = 0; j < k; ++j) {
        CHECK(c.expert[static_cast<std::size_t>(j)] == j);
        CHECK(c.gate[static_cast<std::size_t>(j)] == c.gate[0]);
      }
    }
  }
}

/// Owns the arrays of `slot_groups`.
struct groups_owner {
  std::vector<std::int32_t> expert_offsets, slots, slot_of, token_of, token_offsets, token_slots;
  index_t experts, tokens;

  groups_owner(index_t expert_count, index_t token_count, std::size_t n)
      : expert_offsets(static_cast<std::size_t>(expert_count + 1), 77),
        slots(n, 77),
        slot_of(n, 77),
        token_of(n, 77),
        token_offsets(static_cast<std::size_t>(token_count + 1), 77),
        token_slots(n, 77),
        experts{expert_count},
        tokens{token_count} {}
  slot_groups<> view() {
    return {experts,        tokens,          write(expert_offsets), write(slots),
            write(slot_of), write(token_of), write(token_offsets),  write(token_slots)};
  }
};

/// Slots of every kind: tokens out of order, with none and with many slots; dropped slots.
struct scene {
  index_t experts, tokens;
  std::vector<std::int32_t> token, expert;
};

std::vector<scene> scenes() {
  std::vector<scene> all = {
      {4, 0, {}, {}}, {1, 1, {0}, {0}}, {3, 2, {0, 1}, {3, 3}}, {4, 3, {2, 0, 2}, {1, 4, 1}}};
  support::generator g(6);
  for (const index_t experts : {1, 4, 8, 100})
    for (const index_t n : {1, 50, 700}) {
      scene s{experts, 1 + n / 2, {}, {}};
      for (index_t i = 0; i < n; ++i) {
        s.token.push_back(static_cast<std::int32_t>(g.below(s.tokens)));
        s.expert.push_back(static_cast<std::int32_t>(g.below(experts + 1)));
      }
      all.push_back(s);
      for (std::int32_t& e : s.expert) e = static_cast<std::int32_t>(experts - 1);
      all.push_back(s);
    }
  return all;
}

TEST_CASE("group_by_expert orders slots stably, both ways, and loses none") {
  cpu_backend ctx(1);
  for (const scene& s : scenes()) {
    groups_owner owner(s.experts, s.tokens, s.token.size());
    auto ws = support::no_scratch();
    group_by_expert(ctx, read(s.token), read(s.expert), owner.view(), ws);
    std::size_t row = 0;
    for (std::int32_t e = 0; e <= s.experts; ++e) {
      CHECK(owner.expert_offsets[static_cast<std::size_t>(std::min<index_t>(e, s.experts))] ==
            static_cast<std::int32_t>(row));
      for (std::size_t slot = 0; slot < s.expert.size(); ++slot)
        if (s.expert[slot] == e) {
          CHECK(owner.slots[row] == static_cast<std::int32_t>(slot));
          CHECK(owner.token_of[row] == s.token[slot]);
          CHECK(owner.slot_of[slot] == (e < s.experts ? static_cast<std::int32_t>(row) : -1));
          ++row;
        }
    }
    CHECK(row == s.expert.size());
    std::size_t entry = 0;
    for (std::int32_t t = 0; t < s.tokens; ++t) {
      CHECK(owner.token_offsets[static_cast<std::size_t>(t)] == static_cast<std::int32_t>(entry));
      for (std::size_t slot = 0; slot < s.token.size(); ++slot)
        if (s.token[slot] == t) CHECK(owner.token_slots[entry++] == static_cast<std::int32_t>(slot));
    }
    CHECK(owner.token_offsets.back() == static_cast<std::int32_t>(entry));
  }
}

TEST_CASE("the worked example of four tokens, two choices") {
  cpu_backend ctx(1);
  const std::vector<std::int32_t> token = {0, 0, 1, 1, 2, 2, 3, 3}, expert = {1, 0, 0, 1, 0, 3, 1, 2};
  groups_owner owner(4, 4, 8);
  auto ws = support::no_scratch();
  group_by_expert(ctx, read(token), read(expert), owner.view(), ws);
  CHECK(owner.slots == std::vector<std::int32_t>{1, 2, 4, 0, 3, 6, 7, 5});
  CHECK(owner.expert_offsets == std::vector<std::int32_t>{0, 3, 6, 7, 8});
}

TEST_CASE("rows are gathered, combined and summed as the slots say") {
  for (const scene& s : scenes())
    for (const bool gate_sum : {false, true}) {
      const auto n = static_cast<index_t>(s.token.size());
      constexpr index_t cols = 37;
      const tensor h = tensor::random(s.tokens, cols, 1), e = tensor::random(n, cols, 2),
                   y0 = tensor::random(s.tokens, cols, 3);
      const std::vector<float> gate = support::uniform_floats(n, 4, 0, 1);
      groups_owner owner(s.experts, s.tokens, s.token.size());
      {
        cpu_backend ctx(1);
        auto ws = support::no_scratch();
        group_by_expert(ctx, read(s.token), read(s.expert), owner.view(), ws);
      }
      reference::matrix combined(s.tokens, cols), summed = y0.exact(), gathered(n, cols), scaled(n, cols);
      for (index_t t = 0; t < s.tokens; ++t) {
        double rho = gate_sum ? 0 : 1;
        for (std::size_t slot = 0; slot < s.token.size(); ++slot)
          if (gate_sum && s.token[slot] == t && s.expert[slot] < s.experts)
            rho += static_cast<double>(gate[slot]);
        for (index_t j = 0; j < cols; ++j) {
          combined(t, j) = rho * h.exact(t, j);
          for (std::size_t slot = 0; slot < s.token.size(); ++slot)
            if (s.token[slot] == t && s.expert[slot] < s.experts) {
              combined(t, j) += static_cast<double>(gate[slot]) * e.exact(owner.slot_of[slot], j);
              summed(t, j) += e.exact(owner.slot_of[slot], j);
            }
        }
      }
      for (index_t i = 0; i < n; ++i)
        for (index_t j = 0; j < cols; ++j) {
          gathered(i, j) = h.exact(owner.token_of[static_cast<std::size_t>(i)], j);
          scaled(i, j) = static_cast<double>(gate[static_cast<std::size_t>(i)]) * gathered(i, j);
        }
      std::vector<double> expected;
      for (const auto* part : {&combined, &summed, &gathered, &scaled})
        expected.insert(expected.end(), part->values.begin(), part->values.end());
      support::check_on_every_context(
          [&](cpu_backend& ctx) {
            tensor y(s.tokens, cols), z = y0, a(n, cols), b(n, cols);
            combine_rows(ctx, h.view(), e.view(), read(gate), owner.view(), gate_sum, y.view());
            sum_slots(ctx, owner.view(), e.view(), z.view());
            gather_rows(ctx, h.view(), read(owner.token_of), a.view());
            gather_scaled_rows(ctx, h.view(), read(owner.token_of), read(gate), b.view());
            CHECK((y.gaps_kept() && z.gaps_kept() && a.gaps_kept() && b.gaps_kept()));
            return support::together(y, z, a, b);
          },
          expected, 1e-6);
    }
}

TEST_CASE("balance sums and gradients agree with the loss in double precision") {
  for (const index_t experts : {1, 4, 8, 17})
    for (const index_t tokens : {1, 256, 257, 700})
      for (const bool masked : {false, true}) {
        CAPTURE(experts);
        CAPTURE(tokens);
        const int k = static_cast<int>(std::min<index_t>(2, experts));
        const tensor logits = tensor::random(tokens, experts, 1, 2);
        const auto route = reference::route_logits(exact_options({}, k), logits.exact());
        std::vector<std::uint8_t> valid;
        reference::row_mask mask;
        if (masked)
          for (index_t t = 0; t < tokens; ++t) {
            valid.push_back(t % 3 != 1);
            mask.push_back(t % 3 != 1);
          }
        const reference::list<reference::routing> layers = {route};
        const auto balance = reference::balance_loss(layers, false, mask);
        const auto z = reference::z_loss(layers, mask);
        std::vector<std::int32_t> token, expert;
        for (const auto& a : route.assignments) {
          token.push_back(static_cast<std::int32_t>(a.token));
          expert.push_back(static_cast<std::int32_t>(a.expert));
        }
        token.push_back(0);
        expert.push_back(static_cast<std::int32_t>(experts));  // dropped: not counted
        const double rows = static_cast<double>(balance.rows);
        std::vector<double> expected;
        for (index_t e = 0; e < experts; ++e) expected.push_back(balance.fractions[e]);
        for (index_t e = 0; e < experts; ++e) expected.push_back(balance.probabilities[e]);
        expected.push_back(z.loss);
        std::vector<double> gradient;
        for (index_t i = 0; i < balance.dlogits[0].count(); ++i)
          gradient.push_back(rows * (balance.dlogits[0][i] + 0.1 * z.dlogits[0][i]));
        support::on_every_context(
            [&](cpu_backend& ctx) {
              const auto n = static_cast<std::size_t>(experts);
              std::vector<double> counts(n, 1.0), probabilities(n, 2.0),
                  totals(2, 3.0);  // added to what is there
              support::with_scratch([&](workspace<>& ws) {
                balance_accumulate(ctx, logits.view(), read(token), read(expert), read(valid),
                                   balance_sums<>{write(counts), write(probabilities), write(totals)}, ws);
              });
              CHECK(totals[0] - 3.0 == rows);
              std::vector<float> result, f(n);
              for (std::size_t e = 0; e < n; ++e) f[e] = static_cast<float>((counts[e] - 1.0) / rows);
              for (const double c : counts) result.push_back(static_cast<float>((c - 1.0) / rows));
              for (const double p : probabilities) result.push_back(static_cast<float>((p - 2.0) / rows));
              result.push_back(static_cast<float>((totals[1] - 3.0) / rows));
              CHECK(support::near(result, expected, 1e-6));
              tensor d(tokens, experts);
              balance_backward(ctx, logits.view(), read(valid), read(f), static_cast<float>(experts), 0.2f,
                               d.view());
              CHECK(d.gaps_kept());
              CHECK(support::near(d.values(), gradient, experts == 1 ? 1e-4 : 3e-6));
              const std::vector<float> back = d.values();
              result.insert(result.end(), back.begin(), back.end());
              return result;
            },
            [](const std::vector<float>&) {});
      }
}

}  // namespace
