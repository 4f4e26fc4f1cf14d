// SPDX-License-Identifier: Apache-2.0
#include "pesc/moe/combine.hpp"

#include <vector>

#include <doctest/doctest.h>

#include "moe/stage_test.hpp"
#include "pesc/moe/dispatch.hpp"

namespace {

using pesc::index_t;
using pesc::residual_kind;
using support::numbers;

constexpr index_t tokens = 5;
constexpr index_t experts = 3;
constexpr index_t hidden = 7;

/// Two slots a token; slots 1, 4 and 5 are dropped, so token 2 has none left.
struct fixture {
  support::plain_context ctx;
  std::vector<std::int32_t> token{0, 0, 1, 1, 2, 2, 3, 3, 4, 4};
  std::vector<std::int32_t> expert{0, 3, 2, 0, 3, 3, 1, 2, 2, 0};
  numbers gate{1, 10, 1};
  numbers h{tokens, hidden, 2};
  numbers e{10, hidden, 3};
  pesc::buffer<std::byte> memory;
  pesc::slot_groups<> groups = support::keep(
      memory, [&](pesc::workspace<>& ws) { return pesc::carve_groups(ws, tokens, experts, 10); });
  pesc::routing_state<> routing;

  fixture() {
    routing.token = {token.data(), 10};
    routing.expert = {expert.data(), 10};
    routing.gate = gate.list();
    support::run_stage([&](pesc::workspace<>& ws) { pesc::dispatch(ctx, routing, groups, ws); });
  }

  [[nodiscard]] bool kept(index_t slot) const { return groups.slot_of[slot] >= 0; }
  [[nodiscard]] double gate_of(index_t slot) const { return static_cast<double>(gate.read()(0, slot)); }
  [[nodiscard]] double rho(index_t t, residual_kind residual) const {
    if (residual == residual_kind::one) return 1;
    double sum = 0;
    for (index_t s = 2 * t; s < 2 * t + 2; ++s) sum += kept(s) ? gate_of(s) : 0;
    return sum;
  }
};

}  // namespace

TEST_SUITE("moe/combine") {
  TEST_CASE("y is rho h plus the gated rows of the kept slots") {
    fixture f;
    for (const auto residual : {residual_kind::one, residual_kind::gate_sum}) {
      numbers y(tokens, hidden, 9);
      pesc::combine(f.ctx, f.h.read(), f.e.read(), f.routing, f.groups, residual, y.view());
      reference::matrix expected(tokens, hidden);
      for (index_t t = 0; t < tokens; ++t)
        for (index_t i = 0; i < hidden; ++i) {
          expected(t, i) = f.rho(t, residual) * static_cast<double>(f.h(t, i));
          for (index_t s = 2 * t; s < 2 * t + 2; ++s)
            if (f.kept(s)) expected(t, i) += f.gate_of(s) * static_cast<double>(f.e(f.groups.slot_of[s], i));
        }
      CHECK(support::near(y.view(), expected, 1e-6));
    }
  }

  TEST_CASE("backward adds rho dy to dh, and the part of the residual to the gates") {
    fixture f;
    const numbers dy(tokens, hidden, 4);
    for (const auto residual : {residual_kind::one, residual_kind::gate_sum}) {
      numbers dh(tokens, hidden, 5);
      numbers dgate(1, 10, 6);
      reference::matrix expected_dh = dh.exact();
      reference::matrix expected_dgate = dgate.exact();
      pesc::combine_backward(f.ctx, dy.read(), f.h.read(), f.routing, f.groups, residual, dh.view(),
                             dgate.list());
      for (index_t t = 0; t < tokens; ++t)
        for (index_t i = 0; i < hidden; ++i) {
          const double d = static_cast<double>(dy.read()(t, i));
          expected_dh(t, i) += f.rho(t, residual) * d;
          for (index_t s = 2 * t; s < 2 * t + 2; ++s)
            if (residual == residual_kind::gate_sum && f.kept(s))
              expected_dgate[s] += d * static_cast<double>(f.h(t, i));
        }
      CHECK(support::near(dh.view(), expected_dh, 1e-6));
      CHECK(support::near(dgate.view(), expected_dgate, 1e-6));
    }
  }
}
