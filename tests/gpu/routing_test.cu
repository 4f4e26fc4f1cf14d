// SPDX-License-Identifier: Apache-2.0
#include "gpu/device_groups.hpp"
#include "gpu/device_tensor.hpp"
#include "pesc/gpu/routing.cuh"
#include "support/gate_rules.hpp"
#include "support/reference_balance.hpp"

namespace {

using namespace pesc;
using support::all_gates;
using support::device_groups;
using support::device_tensor;
using support::exact_options;
using support::on_device;

struct choice {
  std::vector<std::int32_t> expert;
  std::vector<float> gate;
};

choice choose(gpu::context& ctx, device_tensor& logits, int k, const gate_options& options) {
  const index_t slots = logits.view().rows * k;
  on_device<std::int32_t> expert(ctx, slots);
  on_device<float> gate(ctx, slots);
  top_k_softmax(ctx, logits.in(), k, options, expert.view(), gate.view());
  return {expert.values(), gate.values()};
}

TEST_SUITE("gpu/routing") {
  TEST_CASE("top_k_softmax and its gradient agree with double precision") {
    struct {
      index_t experts;
      int k;
      index_t tokens;
    } const shapes[] = {{1, 1, 33}, {4, 1, 301}, {8, 2, 0},   {8, 2, 1},    {8, 2, 301},
                        {6, 6, 33}, {16, 4, 70}, {60, 4, 33}, {128, 16, 9}, {4097, 16, 2}};
    cuda_backend ctx;
    for (const auto& shape : shapes)
      for (const gate_options& options : all_gates) {
        CAPTURE(shape.experts);
        CAPTURE(shape.k);
        CAPTURE(shape.tokens);
        const auto x = support::normal_floats(shape.tokens * shape.experts, 1, 2);
        const auto start = support::normal_floats(shape.tokens * shape.experts, 3);
        const auto dgate = support::normal_floats(shape.tokens * shape.k, 2);
        const auto exact = reference::route_logits(exact_options(options, shape.k),
                                                   support::exact(shape.tokens, shape.experts, x));
        device_tensor logits(ctx, shape.tokens, shape.experts, x),
            dlogits(ctx, shape.tokens, shape.experts, start);
        const choice c = choose(ctx, logits, shape.k, options);
        std::vector<std::int32_t> experts;
        std::vector<double> gates;
        for (const auto& a : exact.assignments) {
          experts.push_back(static_cast<std::int32_t>(a.expert));
          gates.push_back(a.gate);
        }
        CHECK(c.expert == experts);
        CHECK(support::near(c.gate, gates, 2e-6));

        reference::list<double> dgates(std::vector<double>(dgate.begin(), dgate.end()));
        reference::matrix d = reference::gates_backward(exact, dgates).logits;
        reference::add_to(d, support::exact(shape.tokens, shape.experts, start));
        on_device<std::int32_t> expert(ctx, c.expert);
        on_device<float> gate(ctx, c.gate), from_gate(ctx, dgate);
        top_k_softmax_backward(ctx, logits.in(), shape.k, options, expert.view(), gate.view(),
                               from_gate.view(), dlogits.view());
        CHECK(support::near(dlogits.values(), d.values, 2e-6));
        CHECK(dlogits.gaps_kept());
      }
  }

  TEST_CASE("only gates without renormalisation pass a gradient to experts that were not chosen") {
    cuda_backend ctx;
    device_tensor logits(ctx, 1, 4, {1, 2, 0.5f, -1});
    for (const gate_options& options : all_gates) {
      const choice c = choose(ctx, logits, 2, options);
      CHECK(c.expert == std::vector<std::int32_t>{1, 0});
      CHECK(c.gate[0] == doctest::Approx(options.renormalize ? 0.731058579 : 0.609460038));
      CHECK(c.gate[1] == doctest::Approx(options.renormalize ? 0.268941421 : 0.224207818));
      on_device<std::int32_t> expert(ctx, c.expert);
      on_device<float> gate(ctx, c.gate), dgate(ctx, std::vector<float>{1, 0});
      device_tensor d(ctx, 1, 4);
      top_k_softmax_backward(ctx, logits.in(), 2, options, expert.view(), gate.view(), dgate.view(),
                             d.view());
      CHECK((d.values()[2] != 0.0f) == !options.renormalize);
      CHECK((d.values()[3] != 0.0f) == !options.renormalize);
    }
  }

  TEST_CASE("no logits lead to an expert out of range or a gate out of [0, 1]") {
    const float inf = INFINITY;
    const float bad[] = {NAN, inf, -inf, 0.0f, -0.0f, 3e38f, -3e38f, 1.0f};
    support::generator g(5);
    cuda_backend ctx;
    for (int round = 0; round < 40; ++round) {
      constexpr index_t tokens = 9;
      const index_t experts = 1 + g.below(40);
      const int k = static_cast<int>(1 + g.below(std::min<index_t>(experts, max_top_k)));
      std::vector<float> x;
      for (index_t i = 0; i < tokens * experts; ++i) x.push_back(bad[g.below(i < experts ? 1 : 8)]);
      device_tensor logits(ctx, tokens, experts, x);
      const reference::matrix exact = support::exact(tokens, experts, x);
      for (const gate_options& options : all_gates) {
        const choice c = choose(ctx, logits, k, options);
        bool same = true, in_range = true, equal = true;
        for (index_t t = 0; t < tokens; ++t) {
          const auto best = reference::top_k_of(exact.data() + t * experts, experts, k);
          for (int j = 0; j < k; ++j) {
            const auto s = static_cast<std::size_t>(t * k + j);
            same &= c.expert[s] == best[j];
            in_range &= c.gate[s] >= 0.0f && c.gate[s] <= 1.0f;
            equal &= t > 0 || c.gate[s] == c.gate[0];  // the first row holds NaN alone
          }
        }
        CHECK(same);
        CHECK(in_range);
        CHECK(equal);
      }
    }
  }

  TEST_CASE("group_by_expert orders slots stably, both ways, and loses none") {
    cuda_backend ctx;
    for (const support::slot_scene& s : support::slot_scenes()) {
      CAPTURE(s.experts);
      CAPTURE(s.token.size());
      device_groups owner(ctx, s);
      const auto slots = owner.slots.values(), slot_of = owner.slot_of.values(),
                 token_of = owner.token_of.values();
      const auto expert_offsets = owner.expert_offsets.values(), token_offsets = owner.token_offsets.values();
      const auto token_slots = owner.token_slots.values();
      std::size_t row = 0;
      bool right = true;
      for (std::int32_t e = 0; e <= s.experts; ++e) {
        right &= expert_offsets[static_cast<std::size_t>(std::min<index_t>(e, s.experts))] ==
                 static_cast<std::int32_t>(row);
        for (std::size_t slot = 0; slot < s.expert.size(); ++slot)
          if (s.expert[slot] == e) {
            right &= slots[row] == static_cast<std::int32_t>(slot) && token_of[row] == s.token[slot];
            right &= slot_of[slot] == (e < s.experts ? static_cast<std::int32_t>(row) : -1);
            ++row;
          }
      }
      CHECK(row == s.expert.size());
      CHECK(right);
      std::size_t entry = 0;
      right = true;
      for (std::int32_t t = 0; t < s.tokens; ++t) {
        right &= token_offsets[static_cast<std::size_t>(t)] == static_cast<std::int32_t>(entry);
        for (std::size_t slot = 0; slot < s.token.size(); ++slot)
          if (s.token[slot] == t) right &= token_slots[entry++] == static_cast<std::int32_t>(slot);
      }
      CHECK(right);
      CHECK(token_offsets.back() == static_cast<std::int32_t>(entry));
    }
  }

  TEST_CASE("the worked example of four tokens, two choices") {
    cuda_backend ctx;
    device_groups owner(ctx, {4, 4, {0, 0, 1, 1, 2, 2, 3, 3}, {1, 0, 0, 1, 0, 3, 1, 2}});
    CHECK(owner.slots.values() == std::vector<std::int32_t>{1, 2, 4, 0, 3, 6, 7, 5});
    CHECK(owner.expert_offsets.values() == std::vector<std::int32_t>{0, 3, 6, 7, 8});
  }

  TEST_CASE("rows are gathered, combined and summed as the slots say") {
    cuda_backend ctx;
    for (const support::slot_scene& s : support::slot_scenes()) {
      if (s.experts > 100 || s.tokens > 400) continue;
      for (const auto& [cols, where] :
           {std::pair<index_t, support::placement>{37, support::placement::shifted},
            {20, support::placement::aligned}}) {
        const bool gate_sum = cols == 20;
        const auto n = static_cast<index_t>(s.token.size());
        const auto hs = support::normal_floats(s.tokens * cols, 1), es = support::normal_floats(n * cols, 2);
        const auto ys = support::normal_floats(s.tokens * cols, 3);
        const auto gates = support::uniform_floats(n, 4, 0, 1);
        device_groups owner(ctx, s);
        const auto slot_of = owner.slot_of.values(), token_of = owner.token_of.values();
        const auto exact_h = support::exact(s.tokens, cols, hs), exact_e = support::exact(n, cols, es);
        reference::matrix combined(s.tokens, cols), summed = support::exact(s.tokens, cols, ys),
                                                    gathered(n, cols), scaled(n, cols);
        std::vector<double> rho(static_cast<std::size_t>(s.tokens), gate_sum ? 0.0 : 1.0);
        for (std::size_t slot = 0; slot < s.token.size(); ++slot)
          if (gate_sum && s.expert[slot] < s.experts)
            rho[static_cast<std::size_t>(s.token[slot])] += static_cast<double>(gates[slot]);
        for (index_t t = 0; t < s.tokens; ++t)
          for (index_t j = 0; j < cols; ++j)
            combined(t, j) = rho[static_cast<std::size_t>(t)] * exact_h(t, j);
        for (std::size_t slot = 0; slot < s.token.size(); ++slot)
          for (index_t j = 0; j < cols && s.expert[slot] < s.experts; ++j) {
            combined(s.token[slot], j) += static_cast<double>(gates[slot]) * exact_e(slot_of[slot], j);
            summed(s.token[slot], j) += exact_e(slot_of[slot], j);
          }
        for (index_t i = 0; i < n; ++i)
          for (index_t j = 0; j < cols; ++j) {
            gathered(i, j) = exact_h(token_of[static_cast<std::size_t>(i)], j);
            scaled(i, j) = static_cast<double>(gates[static_cast<std::size_t>(i)]) * gathered(i, j);
          }
        device_tensor h(ctx, s.tokens, cols, hs, where), e(ctx, n, cols, es, where),
            y(ctx, s.tokens, cols, where), z(ctx, s.tokens, cols, ys, where), a(ctx, n, cols, where),
            b(ctx, n, cols, where);
        on_device<float> gate(ctx, gates);
        combine_rows(ctx, h.in(), e.in(), gate.view(), owner.view(), gate_sum, y.view());
        sum_slots(ctx, owner.view(), e.in(), z.view());
        gather_rows(ctx, h.in(), owner.token_of.view(), a.view());
        gather_scaled_rows(ctx, h.in(), owner.token_of.view(), gate.view(), b.view());
        CHECK(support::near(y.values(), combined.values, 1e-6));
        CHECK(support::near(z.values(), summed.values, 1e-6));
        CHECK(support::near(a.values(), gathered.values, 0));
        CHECK(support::near(b.values(), scaled.values, 1e-7));
        CHECK((y.gaps_kept() && z.gaps_kept() && a.gaps_kept() && b.gaps_kept()));
        combine_rows(ctx, h.in(), e.in(), gate.view(), owner.view(), gate_sum, h.view());
        CHECK(h.values() == y.values());
      }
    }
  }

  TEST_CASE("balance sums and gradients agree with the loss in double precision") {
    cuda_backend ctx;
    for (const index_t experts : {1, 4, 17, 300})
      for (const index_t tokens : {1, 256, 257, 700})
        for (const bool masked : {false, true}) {
          if (experts == 300 && tokens > 257) continue;
          CAPTURE(experts);
          CAPTURE(tokens);
          const int k = static_cast<int>(std::min<index_t>(2, experts));
          const auto x = support::normal_floats(tokens * experts, 1, 2);
          const auto route =
              reference::route_logits(exact_options({}, k), support::exact(tokens, experts, x));
          std::vector<std::uint8_t> flags;
          reference::row_mask mask;
          for (index_t t = 0; masked && t < tokens; ++t) {
            flags.push_back(t % 3 != 1);
            mask.push_back(t % 3 != 1);
          }
          const reference::list<reference::routing> layers = {route};
          const auto balance = reference::balance_loss(layers, false, mask);
          const auto z = reference::z_loss(layers, mask);
          std::vector<std::int32_t> tokens_of, experts_of;
          for (const auto& a : route.assignments) {
            tokens_of.push_back(static_cast<std::int32_t>(a.token));
            experts_of.push_back(static_cast<std::int32_t>(a.expert));
          }
          tokens_of.push_back(0);
          experts_of.push_back(static_cast<std::int32_t>(experts));  // dropped: not counted
          const auto n = static_cast<std::size_t>(experts);
          device_tensor logits(ctx, tokens, experts, x), d(ctx, tokens, experts), e(ctx, tokens, experts);
          on_device<std::int32_t> token(ctx, tokens_of), expert(ctx, experts_of), load(ctx, experts);
          on_device<std::uint8_t> valid(ctx, flags);
          // Added to what is there.
          on_device<double> counts(ctx, std::vector<double>(n, 1.0)),
              probabilities(ctx, std::vector<double>(n, 2.0)), totals(ctx, std::vector<double>(2, 3.0)),
              none(ctx, 1);
          const balance_sums<device_space> sums{counts.view(), probabilities.view(), totals.view()};
          support::with_device_scratch([&](workspace<device_space>& ws) {
            balance_accumulate(ctx, logits.in(), token.view(), expert.view(), valid.view(), sums, ws);
          });
          const double rows = static_cast<double>(balance.rows);
          CHECK(totals.values()[0] - 3.0 == rows);
          std::vector<double> sum, exact_sum;
          for (const double p : probabilities.values()) sum.push_back((p - 2.0) / rows);
          sum.push_back((totals.values()[1] - 3.0) / rows);
          exact_sum = balance.probabilities.values;
          exact_sum.push_back(z.loss);
          CHECK(support::near(sum, exact_sum, 1e-6));
          expert_load(ctx, token.view(), expert.view(), valid.view(), load.view());
          std::vector<float> f;
          for (std::size_t i = 0; i < n; ++i) {
            const double count = counts.values()[i] - 1.0;
            f.push_back(static_cast<float>(count / rows));
            CHECK(load.values()[i] == count);
          }
          CHECK(support::near(f, balance.fractions.values, 1e-6));

          std::vector<double> gradient;
          for (index_t i = 0; i < balance.dlogits[0].count(); ++i)
            gradient.push_back(balance.dlogits[0][i] + 0.1 * z.dlogits[0][i]);
          on_device<float> fractions(ctx, f);
          on_device<double> row_count(ctx, std::vector<double>{rows});
          const float scale = static_cast<float>(experts);
          balance_backward(ctx, logits.in(), valid.view(), fractions.view(), scale, 0.2f, d.view(),
                           row_count.view());
          CHECK(d.gaps_kept());
          CHECK(support::near(d.values(), gradient, experts == 1 ? 1e-4 : 3e-6));
          balance_backward(ctx, logits.in(), valid.view(), fractions.view(), scale / static_cast<float>(rows),
                           0.2f / static_cast<float>(rows), e.view());
          CHECK(support::near(e.values(), gradient, experts == 1 ? 1e-4 : 3e-6));
          balance_backward(ctx, logits.in(), valid.view(), fractions.view(), scale, 0.2f, d.view(),
                           none.view());
          CHECK(support::near(d.values(), gradient, experts == 1 ? 1e-4 : 3e-6));
        }
  }

  TEST_CASE("balance fractions are shares of the choices, zero where nothing was counted") {
    cuda_backend ctx;
    on_device<double> counts(ctx, std::vector<double>{6, 0, 2}), totals(ctx, std::vector<double>{4, 0}),
        nothing(ctx, 2);
    on_device<float> fractions(ctx, std::vector<float>(3, 9.0f));
    balance_fractions(ctx, balance_sums<device_space>{counts.view(), {}, totals.view()}, 2.0,
                      fractions.view());
    CHECK(fractions.values() == std::vector<float>{0.75f, 0.0f, 0.25f});
    balance_fractions(ctx, balance_sums<device_space>{counts.view(), {}, nothing.view()}, 2.0,
                      fractions.view());
    CHECK(fractions.values() == std::vector<float>(3, 0.0f));
  }

  TEST_CASE("the order of blocks does not show in the sums") {
    cuda_backend ctx;
    device_tensor logits(ctx, 1500, 6, support::normal_floats(1500 * 6, 1));
    std::vector<double> results[2];
    for (std::vector<double>& result : results) {
      on_device<double> counts(ctx, 6), probabilities(ctx, 6), totals(ctx, 2);
      support::with_device_scratch([&](workspace<device_space>& ws) {
        balance_accumulate(ctx, logits.in(), {}, {}, {},
                           balance_sums<device_space>{counts.view(), probabilities.view(), totals.view()},
                           ws);
      });
      result = probabilities.values();
      result.push_back(totals.values()[1]);
    }
    CHECK(results[0] == results[1]);
  }
}

}  // namespace
