// SPDX-License-Identifier: Apache-2.0
#include "pesc/moe/switch_router.hpp"

#include <doctest/doctest.h>

#include "pesc/moe/layer.hpp"
#include "support/host_isas.hpp"
#include "support/layer_bridge.hpp"
#include "support/random.hpp"

namespace {

using pesc::index_t;
using backend = pesc::cpu_backend;

/// \brief Numbers of its own, as a user sets them.
struct tight_router : pesc::switch_router {
  explicit tight_router(const pesc::moe_shape& shape) : switch_router(shape) {
    capacity_factor = 0.75f;
    group = 10;
  }
};

template <class Router>
struct switch_config : pesc::moe_dynamic<> {
  using router = Router;
};

constexpr index_t hidden = 24;
constexpr index_t experts = 4;

template <class Router>
struct fixture {
  using layer_type = pesc::moe_layer<switch_config<Router>, backend>;
  backend ctx;
  pesc::format_info format = pesc::unquantized<float>::info();
  layer_type layer;
  std::vector<float> x, dy, y, dx;
  typename layer_type::buffers buffers;

  fixture(pesc::cpu::isa level, index_t tokens)
      : ctx(2, pesc::cpu::runtime_isa{level}),
        layer(ctx, {hidden, 20, experts, 1, 5, 0}, {.expert_scale = 0.5f}, 7, &format),
        x(support::normal_floats(tokens * hidden, 3)),
        dy(support::normal_floats(tokens * hidden, 4)),
        y(x.size()),
        dx(x.size()),
        buffers(layer.prepare(ctx, tokens)) {
    support::randomize(layer.parameters(), 11);
    layer.forward(ctx, rows(x), rows(y), buffers);
  }

  template <class List>
  auto rows(List& list) const {
    return pesc::matrix_view(list.data(), static_cast<index_t>(list.size()) / hidden, hidden);
  }

  [[nodiscard]] reference::moe_layer expected(index_t tokens) const {
    const Router router(layer.shape());
    reference::moe_layer out = support::to_reference(layer);
    out.routing.kind = reference::router_kind::switch_top_1;
    out.routing.capacity = router.capacity_of(tokens);
    out.routing.group = router.group;
    return out;
  }
};

template <class Router>
void compare(pesc::cpu::isa level, index_t tokens) {
  fixture<Router> f(level, tokens);
  const reference::moe_layer expected = f.expected(tokens);
  const auto state = reference::layer_forward(expected, support::to_reference(f.rows(f.x)));
  CHECK(support::near(f.rows(f.y), state.y, 1e-5));
  const auto& routing = f.buffers.routing();
  index_t dropped = 0;
  for (index_t t = 0; t < tokens; ++t) {
    const auto& a = state.routed.assignments[t];
    CHECK(routing.chosen()[t] == a.expert);
    CHECK(routing.expert[t] == (a.kept ? a.expert : experts));
    dropped += a.kept ? 0 : 1;
  }
  CHECK(dropped == tokens - f.buffers.groups().expert_offsets[experts]);

  pesc::balance_pool pool(experts, 1);
  pesc::buffer<std::byte> memory(1 << 16);
  pesc::workspace<> ws(memory.data(), memory.size());
  balance_accumulate(f.ctx, pesc::as_const(routing.logits), pesc::as_const(routing.token), routing.chosen(),
                     {}, pool.sums(), ws);
  const pesc::balance_options options{.coefficient = 0.1f, .z_coefficient = 0.01f};
  const auto balance = reference::balance_loss({state.routed});
  const auto z = reference::z_loss({state.routed});
  CHECK(pool.values(f.ctx, options).balance == doctest::Approx(balance.loss).epsilon(1e-5));
  reference::logit_gradients auxiliary{reference::scaled(balance.dlogits[0], 0.1), {}};
  reference::add_to(auxiliary.logits, z.dlogits[0], 0.01);

  auto gradients = f.layer.make_gradients();
  f.layer.backward(f.ctx, f.rows(f.dy), f.rows(f.dx), gradients, f.buffers, pool.gradient(f.ctx, options));
  const auto g = reference::layer_backward(expected, state, support::to_reference(f.rows(f.dy)), auxiliary);
  CHECK(support::near(f.rows(f.dx), g.dx, 1e-5));
  CHECK(support::near(gradients.views().router.weight, g.router.weight, 1e-5));
  for (index_t e = 0; e < experts; ++e) {
    CHECK(support::near(gradients.views().experts.down[e], g.experts[e].down, 1e-5, 1e-2));
    CHECK(support::near(gradients.views().experts.up[e], g.experts[e].up, 1e-5, 1e-2));
  }
}

}  // namespace

TEST_CASE("A layer with a Switch router agrees with the reference, dropped tokens and losses included") {
  for (const pesc::cpu::isa level : support::host_isas())
    for (const index_t tokens : {1, 7, 33, 70}) {
      CAPTURE(tokens);
      compare<pesc::switch_router>(level, tokens);
      compare<tight_router>(level, tokens);
    }
}

TEST_CASE("A dropped token keeps its shared output unchanged") {
  fixture<tight_router> f(pesc::cpu::detect_isa(), 70);
  const reference::matrix h =
      reference::ffn_forward(f.expected(70).ffn, support::to_reference(f.rows(f.x))).out;
  index_t dropped = 0;
  for (index_t t = 0; t < 70; ++t) {
    if (f.buffers.routing().expert[t] != experts) continue;
    ++dropped;
    CHECK(f.buffers.routing().gate[t] == 0.0f);
    for (index_t j = 0; j < hidden; ++j)
      CHECK(static_cast<double>(f.rows(f.y)(t, j)) == doctest::Approx(h(t, j)).epsilon(1e-5).scale(1e-2));
  }
  CHECK(dropped > 0);
}

TEST_CASE("No expert takes more of a group than its capacity, which follows from the factor or is given") {
  pesc::switch_router router({.hidden = hidden, .experts = experts, .top_k = 1});
  CHECK(router.capacity_of(33) == 11);  // ceil(1.25 * 33 / 4)
  CHECK(router.capacity_of(1) == 1);
  router.group = 8;
  CHECK(router.capacity_of(33) == 3);
  router.capacity = 5;
  CHECK(router.capacity_of(33) == 5);

  fixture<tight_router> f(pesc::cpu::detect_isa(), 70);
  for (index_t begin = 0; begin < 70; begin += 10) {
    index_t taken[experts + 1] = {};
    for (index_t t = begin; t < begin + 10; ++t) ++taken[f.buffers.routing().expert[t]];
    for (index_t e = 0; e < experts; ++e) CHECK(taken[e] <= 2);  // ceil(0.75 * 10 / 4)
  }
}
