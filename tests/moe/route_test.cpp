// SPDX-License-Identifier: Apache-2.0
#include "pesc/moe/route.hpp"

#include <limits>
#include <numeric>
#include <vector>

#include <doctest/doctest.h>

#include "moe/stage_test.hpp"

namespace {

using pesc::gate_order;
using pesc::index_t;
using pesc::top_k_router;
using support::numbers;
using support::plain_context;

constexpr auto after = gate_order::softmax_after_top_k;
constexpr auto before = gate_order::softmax_before_top_k;

static_assert(pesc::Router<top_k_router<1>>);
static_assert(pesc::Router<top_k_router<16, before, false>>);
static_assert(!pesc::Router<pesc::gelu>);
static_assert(top_k_router<2, after>::residual == pesc::residual_kind::one);
static_assert(top_k_router<2, before, true>::residual == pesc::residual_kind::one);
static_assert(top_k_router<2, before, false>::residual == pesc::residual_kind::gate_sum);

constexpr index_t hidden = 9;

/// A router with everything around it.
template <class Router>
struct fixture {
  plain_context ctx;
  pesc::moe_shape shape;
  Router router;
  numbers x, weight, dx, dweight;
  pesc::buffer<std::byte> memory;
  typename Router::template state<pesc::host_space> state;

  fixture(index_t tokens, index_t experts, index_t k)
      : shape{hidden, 8, experts, k, 4, 0},
        router(shape),
        x(tokens, hidden, 1),
        weight(experts, hidden, 2),
        dx(tokens, hidden, 3),
        dweight(experts, hidden, 4),
        state(support::keep(memory, [&](pesc::workspace<>& ws) {
          return Router::template state<pesc::host_space>::carve(router, ws, shape, tokens);
        })) {}

  void forward() {
    support::run_stage([&](pesc::workspace<>& ws) {
      route_forward(ctx, router, x.read(), pesc::router_parameters<>{weight.view()}, state, {}, ws);
    });
  }
  void backward(pesc::vector_view<const float> dgate, const pesc::balance_gradient<>& balance = {}) {
    support::run_stage([&](pesc::workspace<>& ws) {
      route_backward(ctx, router, x.read(), pesc::router_parameters<>{weight.view()}, state, dgate, balance,
                     dx.view(), pesc::router_parameters<>{dweight.view()}, {}, ws);
    });
  }
};

template <class Router>
reference::router_options reference_options(index_t k) {
  reference::router_options out;
  out.kind = Router::gates.order == after ? reference::router_kind::softmax_after_top_k
                                          : reference::router_kind::softmax_before_top_k;
  out.renormalise = Router::gates.renormalize;
  out.top_k = k;
  return out;
}

template <class Router>
void compare(index_t tokens, index_t experts, index_t k) {
  CAPTURE(tokens);
  CAPTURE(experts);
  CAPTURE(k);
  fixture<Router> f(tokens, experts, k);
  f.forward();
  const reference::router_parameters p{f.weight.exact(), {}};
  const auto r = reference::route(reference_options<Router>(k), p, f.x.exact());
  REQUIRE(f.state.slots() == tokens * k);
  reference::matrix gates(1, tokens * k);
  for (index_t s = 0; s < tokens * k; ++s) {
    CHECK(f.state.token[s] == r.assignments[s].token);
    CHECK(f.state.expert[s] == r.assignments[s].expert);
    gates[s] = r.assignments[s].gate;
  }
  CHECK(support::near(pesc::matrix_view<float>(f.state.gate.data, 1, tokens * k), gates, 1e-5));

  const numbers dgate(1, tokens * k, 5);
  const reference::matrix dx = f.dx.exact();
  const reference::matrix dweight = f.dweight.exact();
  f.backward({dgate.read().data, tokens * k});
  reference::list<double> d;
  for (const float value : dgate.values()) d.push_back(static_cast<double>(value));
  auto g = reference::router_backward(p, r, reference::gates_backward(r, d));
  add_to(g.dx, dx);  // both are added to what was there
  add_to(g.weight, dweight);
  CHECK(support::near(f.dx.view(), g.dx, 1e-5));
  CHECK(support::near(f.dweight.view(), g.weight, 1e-5));
}

}  // namespace

TEST_SUITE("moe/route") {
  TEST_CASE_TEMPLATE("routing and its backward agree with the double reference for every order of gates",
                     Router, top_k_router<2, after>, top_k_router<2, before, true>,
                     top_k_router<2, before, false>) {
    compare<Router>(6, 5, 2);
    compare<Router>(1, 2, 2);
    compare<Router>(40, 33, 2);
  }

  TEST_CASE("a dynamic k gives what a static one gives, up to 16 and up to all experts") {
    using open = top_k_router<pesc::dynamic>;
    compare<open>(5, 1, 1);
    compare<open>(5, 7, 7);
    compare<open>(3, 40, 16);
    compare<top_k_router<16>>(3, 16, 16);
    fixture<open> a(6, 8, 3);
    fixture<top_k_router<3>> b(6, 8, 3);
    a.forward();
    b.forward();
    CHECK(std::equal(a.state.gate.begin(), a.state.gate.end(), b.state.gate.begin()));
    CHECK(std::equal(a.state.expert.begin(), a.state.expert.end(), b.state.expert.begin()));
  }

  TEST_CASE("without a token nothing is written and nothing is added") {
    fixture<top_k_router<2>> f(0, 4, 2);
    const auto dweight = f.dweight.values();
    f.forward();
    f.backward({});
    CHECK(f.dweight.values() == dweight);
  }

  TEST_CASE("equal logits go to the lower experts, a NaN to the last") {
    fixture<top_k_router<3>> f(2, 5, 3);
    for (index_t e = 0; e < 5; ++e)
      for (index_t i = 0; i < hidden; ++i) f.weight(e, i) = 0.25f;
    f.x(1, 0) = std::numeric_limits<float>::quiet_NaN();
    f.forward();
    for (index_t s = 0; s < 6; ++s) {
      CHECK(f.state.expert[s] == s % 3);
      CHECK(f.state.gate[s] == doctest::Approx(1.0 / 3));
    }
  }

  TEST_CASE("with one expert its gate is 1 and the router gets no gradient from the task") {
    fixture<top_k_router<1>> f(4, 1, 1);
    f.forward();
    const auto dweight = f.dweight.values();
    const numbers dgate(1, 4, 5);
    f.backward({dgate.read().data, 4});
    for (index_t s = 0; s < 4; ++s) CHECK(f.state.gate[s] == 1.0f);
    CHECK(f.dweight.values() == dweight);
  }

  TEST_CASE("the gradient of the losses is added to that of the gates") {
    fixture<top_k_router<2>> f(6, 4, 2);
    f.forward();
    const numbers fractions(1, 4, 8);
    const std::vector<std::uint8_t> valid{1, 1, 0, 1, 0, 1};
    pesc::balance_gradient<> balance{{fractions.read().data, 4}, 0.3f, 0.2f, 0.0f, {}};
    balance.valid = std::span<const std::uint8_t>(valid);
    const reference::matrix before_call = f.dweight.exact();
    const numbers dgate(1, 12);
    f.backward({dgate.read().data, 12}, balance);

    const reference::matrix logits = support::to_reference(f.state.logits);
    const reference::matrix p = reference::softmax_rows(logits);
    reference::matrix dlogits(6, 4);
    for (index_t t = 0; t < 6; ++t) {
      if (valid[static_cast<std::size_t>(t)] == 0) continue;
      const double lse = reference::log_sum_exp(logits.data() + t * 4, 4);
      double mean = 0;
      for (index_t e = 0; e < 4; ++e) mean += p(t, e) * static_cast<double>(fractions.read()(0, e));
      for (index_t e = 0; e < 4; ++e)
        dlogits(t, e) =
            p(t, e) * (static_cast<double>(0.3f) * (static_cast<double>(fractions.read()(0, e)) - mean) +
                       static_cast<double>(0.2f) * lse);
    }
    reference::matrix expected = reference::transposed_product(dlogits, f.x.exact());
    add_to(expected, before_call);
    CHECK(support::near(f.dweight.view(), expected, 1e-5));
  }
}
