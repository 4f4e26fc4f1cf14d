// SPDX-License-Identifier: Apache-2.0
#include "pesc/moe/noisy_top_k_router.hpp"

#include <doctest/doctest.h>

#include "pesc/moe/layer.hpp"
#include "support/host_isas.hpp"
#include "support/layer_bridge.hpp"
#include "support/random.hpp"

namespace {

using pesc::index_t;
using pesc::load_indicator;
using backend = pesc::cpu_backend;

template <load_indicator Indicator>
struct noisy_config : pesc::moe_dynamic<> {
  using router = pesc::noisy_top_k_router<pesc::dynamic, Indicator>;
};
template <load_indicator Indicator>
using noisy_layer = pesc::moe_layer<noisy_config<Indicator>, backend>;

struct sizes {
  index_t experts, top_k, tokens;
};

constexpr index_t hidden = 24;

/// \brief A layer with random weights, its buffers and one forward call.
template <load_indicator Indicator>
struct fixture {
  backend ctx;
  pesc::format_info format = pesc::unquantized<float>::info();
  noisy_layer<Indicator> layer;
  pesc::moe_run run;
  std::vector<float> x, dy, y, dx;
  typename noisy_layer<Indicator>::buffers buffers;

  fixture(pesc::cpu::isa level, const sizes& z, bool training)
      : ctx(2, pesc::cpu::runtime_isa{level}),
        layer(ctx, {hidden, 20, z.experts, z.top_k, 5, 0}, {.expert_scale = 0.5f}, 7, &format),
        run{.training = training, .seed = 5, .step = 2, .layer = 1},
        x(support::normal_floats(z.tokens * hidden, 3)),
        dy(support::normal_floats(z.tokens * hidden, 4)),
        y(x.size()),
        dx(x.size()),
        buffers(layer.prepare(ctx, z.tokens)) {
    support::randomize(layer.parameters(), 11);
    layer.forward(ctx, rows(x), rows(y), buffers, run);
  }

  template <class List>
  auto rows(List& list) const {
    return pesc::matrix_view(list.data(), static_cast<index_t>(list.size()) / hidden, hidden);
  }
  [[nodiscard]] const auto& routing() const { return buffers.state().routing; }

  [[nodiscard]] reference::moe_layer expected() const {
    reference::moe_layer out = support::to_reference(layer);
    out.router.noise_weight = support::to_reference(layer.parameters().router.noise);
    out.routing.kind = reference::router_kind::noisy_top_k;
    out.routing.indicator = Indicator == load_indicator::llama_moe ? reference::load_indicator::llama_moe
                                                                   : reference::load_indicator::noisy_logit;
    return out;
  }
};

template <class F>
void with_memory(F&& f) {
  pesc::buffer<std::byte> memory(1 << 22);
  pesc::workspace<> ws(memory.data(), memory.size());
  f(ws);
}

/// \brief Output, loss and every gradient against the reference, which central differences confirm.
template <load_indicator Indicator>
void compare(pesc::cpu::isa level, const sizes& z, bool training, float loss_weight) {
  fixture<Indicator> f(level, z, training);
  const reference::moe_layer expected = f.expected();
  reference::layer_randomness random;
  if (training) random.router_noise = support::to_reference(f.routing().noise);
  const auto state = reference::layer_forward(expected, support::to_reference(f.rows(f.x)), random);
  CHECK(support::near(f.rows(f.y), state.y, 1e-5));

  const auto loss = reference::noisy_balance_loss(state.routed, 1.0);
  with_memory([&](pesc::workspace<>& ws) {
    const pesc::noisy_top_k_router<pesc::dynamic, Indicator> router(f.layer.shape());
    double terms[2] = {};
    noisy_balance(f.ctx, router, f.routing(), {}, f.run, pesc::vector_view<double>{terms, 2}, ws);
    CHECK(terms[0] + terms[1] == doctest::Approx(loss.loss).epsilon(1e-4));
    for (index_t e = 0; e < z.experts; ++e) {
      CHECK(f.routing().load[e] == doctest::Approx(loss.load[e]).epsilon(1e-4));
      CHECK(f.routing().importance[e] == doctest::Approx(loss.importance[e]).epsilon(1e-4));
    }
  });

  pesc::balance_gradient<> balance;
  balance.router_scale = loss_weight;
  auto gradients = f.layer.make_gradients();
  f.layer.backward(f.ctx, f.rows(f.dy), f.rows(f.dx), gradients, f.buffers, balance);
  reference::logit_gradients auxiliary;
  const auto weighted = reference::noisy_balance_loss(state.routed, static_cast<double>(loss_weight));
  if (loss_weight != 0.0f) auxiliary = weighted.gradient;
  const auto g = reference::layer_backward(expected, state, support::to_reference(f.rows(f.dy)), auxiliary);
  CHECK(support::near(f.rows(f.dx), g.dx, 1e-5));
  CHECK(support::near(gradients.views().router.weight, g.router.weight, 1e-5, 1e-2));
  if (training) CHECK(support::near(gradients.views().router.noise, g.router.noise_weight, 1e-5, 1e-2));
  for (index_t e = 0; e < z.experts; ++e)
    CHECK(support::near(gradients.views().experts.down[e], g.experts[e].down, 1e-5, 1e-2));
}

}  // namespace

TEST_CASE(
    "A layer with a noisy router agrees with the reference in training, with and without its own loss") {
  for (const pesc::cpu::isa level : support::host_isas())
    for (const sizes& z : {sizes{8, 2, 25}, sizes{5, 1, 9}, sizes{4, 4, 7}, sizes{17, 6, 33}})
      for (const float weight : {0.0f, 0.5f}) {
        CAPTURE(z.experts);
        CAPTURE(z.top_k);
        CAPTURE(weight);
        compare<load_indicator::noisy_logit>(level, z, true, weight);
        compare<load_indicator::llama_moe>(level, z, true, weight);
      }
}

TEST_CASE("Without training a noisy router adds no noise and counts its load") {
  compare<load_indicator::noisy_logit>(pesc::cpu::detect_isa(), {8, 2, 25}, false, 0.5f);
  fixture<load_indicator::noisy_logit> f(pesc::cpu::detect_isa(), {8, 2, 25}, false);
  CHECK(support::near(f.routing().noisy, support::to_reference(f.routing().logits), 0.0));
}

TEST_CASE("The reference's gradient of the noisy loss agrees with central differences") {
  // Away from a change of choice the loss is smooth; one number of each weight is moved at a time.
  fixture<load_indicator::noisy_logit> f(pesc::cpu::isa::scalar, {6, 2, 11}, true);
  reference::moe_layer layer = f.expected();
  const reference::matrix x = support::to_reference(f.rows(f.x));
  const reference::matrix noise = support::to_reference(f.routing().noise);
  const auto loss = [&] {
    return reference::noisy_balance_loss(reference::route(layer.routing, layer.router, x, noise), 1.0).loss;
  };
  const auto routed = reference::route(layer.routing, layer.router, x, noise);
  const auto g =
      reference::router_backward(layer.router, routed, reference::noisy_balance_loss(routed, 1.0).gradient);
  for (const bool of_noise : {false, true}) {
    reference::matrix& weight = of_noise ? layer.router.noise_weight : layer.router.weight;
    const reference::matrix& gradient = of_noise ? g.noise_weight : g.weight;
    for (index_t i = 0; i < weight.count(); i += 13) {
      const double kept = weight[i];
      weight[i] = kept + 1e-5;
      const double above = loss();
      weight[i] = kept - 1e-5;
      const double below = loss();
      weight[i] = kept;
      CHECK(gradient[i] == doctest::Approx((above - below) / 2e-5).epsilon(1e-5).scale(1e-2));
    }
  }
}

TEST_CASE("Noise is drawn from the stream of the call and does not depend on the number of threads") {
  const auto noise_of = [](int threads, const pesc::moe_run& run) {
    backend ctx(threads);
    const pesc::noisy_top_k_router<2> router({.hidden = hidden, .experts = 8, .top_k = 2});
    const std::vector<float> weight(8 * hidden, 0.1f);
    const std::vector<float> x = support::normal_floats(700 * hidden, 3);
    std::vector<float> kept;
    with_memory([&](pesc::workspace<>& ws) {
      const auto state =
          pesc::noisy_routing_state<>::carve(router, ws, {.hidden = hidden, .experts = 8, .top_k = 2}, 700);
      const pesc::matrix_view<float> w(const_cast<float*>(weight.data()), 8, hidden);
      route_forward(ctx, router, pesc::matrix_view<const float>(x.data(), 700, hidden), {w, w}, state, run,
                    ws);
      kept.assign(state.noise.data, state.noise.data + state.noise.size());
    });
    return kept;
  };
  const pesc::moe_run run{.training = true, .seed = 1};
  const std::vector<float> one = noise_of(1, run);
  CHECK(one == noise_of(3, run));
  CHECK(one != noise_of(1, {.training = true, .seed = 2}));
  CHECK(one != noise_of(1, {.training = true, .seed = 1, .step = 1}));
  double mean = 0;
  double square = 0;
  for (const float n : one) {
    mean += static_cast<double>(n) / static_cast<double>(one.size());
    square += static_cast<double>(n) * static_cast<double>(n) / static_cast<double>(one.size());
  }
  CHECK(mean == doctest::Approx(0).scale(1).epsilon(0.05));
  CHECK(square == doctest::Approx(1).epsilon(0.06));
}

TEST_CASE("Rows of padding count neither in the noisy loss nor in its gradient") {
  const sizes z{6, 2, 20};
  fixture<load_indicator::noisy_logit> f(pesc::cpu::detect_isa(), z, true);
  std::vector<std::uint8_t> valid(20, 1);
  for (std::size_t i = 0; i < 20; i += 3) valid[i] = 0;
  const pesc::vector_view<const std::uint8_t> mask(valid.data(), 20);

  // The reference sees the counted rows alone.
  const reference::moe_layer layer = f.expected();
  reference::matrix x(13, hidden), noise(13, z.experts);
  index_t n = 0;
  for (index_t t = 0; t < 20; ++t) {
    if (valid[static_cast<std::size_t>(t)] == 0) continue;
    for (index_t j = 0; j < hidden; ++j) x(n, j) = static_cast<double>(f.rows(f.x)(t, j));
    for (index_t e = 0; e < z.experts; ++e) noise(n, e) = static_cast<double>(f.routing().noise(t, e));
    ++n;
  }
  REQUIRE(n == 13);
  const auto routed = reference::route(layer.routing, layer.router, x, noise);
  const auto loss = reference::noisy_balance_loss(routed, 1.0);
  const auto g = reference::router_backward(layer.router, routed, loss.gradient);

  auto gradients = f.layer.make_gradients();
  const std::vector<float> none(f.dy.size(), 0.0f);
  pesc::balance_gradient<> balance;
  balance.router_scale = 1.0f;
  balance.valid = mask;
  f.layer.backward(f.ctx, f.rows(none), f.rows(f.dx), gradients, f.buffers, balance);
  CHECK(support::near(gradients.views().router.weight, g.weight, 1e-5));
  CHECK(support::near(gradients.views().router.noise, g.noise_weight, 1e-5));
}

TEST_CASE("A noisy router starts with zero weights and refuses a k beyond its load estimate") {
  const pesc::moe_shape shape{.hidden = hidden, .experts = 20, .top_k = 16};
  CHECK_THROWS_AS(pesc::noisy_top_k_router<pesc::dynamic>{shape}, pesc::shape_error);
  CHECK_NOTHROW(pesc::noisy_top_k_router<16>({.hidden = hidden, .experts = 16, .top_k = 16}));
  backend ctx(1);
  const pesc::format_info format = pesc::unquantized<float>::info();
  const noisy_layer<load_indicator::noisy_logit> layer(ctx, {hidden, 20, 4, 2, 3, 0}, {}, 1, &format);
  std::vector<std::string> names;
  layer.parameters().router.for_each([&](const std::string& name, pesc::batch_view<float> tensor) {
    names.push_back(name);
    for (index_t i = 0; i < tensor.size(); ++i) CHECK(tensor.data[i] == 0.0f);
  });
  CHECK(names == std::vector<std::string>{"router", "router_noise"});
}
