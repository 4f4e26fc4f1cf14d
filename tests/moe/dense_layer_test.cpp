// SPDX-License-Identifier: Apache-2.0
#include "pesc/moe/dense_layer.hpp"

#include <doctest/doctest.h>

#include "moe/stage_test.hpp"

namespace {

using pesc::index_t;
using backend = support::plain_context;
using support::numbers;

constexpr index_t hidden = 12;
constexpr index_t intermediate = 21;
constexpr index_t tokens = 5;

struct config : pesc::moe_dynamic<> {
  using weight = pesc::unquantized<float>;
};
using layer_type = pesc::dense_layer<config, backend>;

struct fixture {
  backend ctx;
  numbers gate{intermediate, hidden, 1, 0.3}, up{intermediate, hidden, 2, 0.3},
      down{hidden, intermediate, 3, 0.3};
  pesc::frozen_ffn<config::weight> frozen{ctx, config::weight::info(),
                                          pesc::dense_ffn<float>{gate.view(), up.view(), down.view()}};
  pesc::moe_shape shape{.hidden = hidden, .intermediate = intermediate, .lora_rank = 3};
  pesc::buffer<float> memory{4096}, gradient_memory{4096};
  layer_type::trainables parameters = carve(memory), gradients = carve(gradient_memory);
  numbers x{tokens, hidden, 4}, dy{tokens, hidden, 5}, y{tokens, hidden}, dx{tokens, hidden, 6};

  fixture() { support::randomize(parameters, 7); }

  layer_type::trainables carve(pesc::buffer<float>& block) const {
    pesc::parameter_arena<> arena(block.data(), block.size());
    return layer_type::trainables::carve(arena, shape);
  }
  [[nodiscard]] layer_type layer(const pesc::moe_options& options = {}) const {
    return {shape, frozen.view<layer_type::frozen>(), parameters, options};
  }

  void run(const layer_type& l, const pesc::moe_run& call) {
    pesc::buffer<std::byte> kept;
    auto state = support::keep(kept, [&](pesc::workspace<>& ws) { return l.carve_state(ws, tokens); });
    support::run_stage([&](pesc::workspace<>& ws) { l.forward(ctx, x.read(), y.view(), state, call, ws); });
    support::run_stage([&](pesc::workspace<>& ws) {
      l.backward(ctx, dy.read(), dx.view(), gradients, state, {}, call, ws);
    });
  }
};

}  // namespace

TEST_SUITE("moe/dense_layer") {
  TEST_CASE("forward and backward agree with the double reference, with and without keeping the network") {
    for (const bool recompute : {false, true}) {
      fixture f;
      const pesc::moe_options options{.lora_alpha = 6.0f, .lora_dropout = 0.25f, .recompute_ffn = recompute};
      const pesc::moe_run call{.training = true, .seed = 1, .step = 2, .layer = 3};
      const layer_type layer = f.layer(options);
      f.run(layer, call);
      const auto ffn =
          support::reference_ffn(layer.weights(), layer.parameters(), layer.shape(), options, call, tokens);
      const auto state = reference::ffn_forward(ffn, f.x.exact());
      const auto g = reference::ffn_backward(ffn, state, f.dy.exact());
      CHECK(support::near(f.y.view(), state.out, 1e-5));
      CHECK(support::near(f.dx.view(), g.dx, 1e-5));
      CHECK(support::near(f.gradients.gate.a, g.gate.a, 1e-5));
      CHECK(support::near(f.gradients.gate.b, g.gate.b, 1e-5));
      CHECK(support::near(f.gradients.up.a, g.up.a, 1e-5));
      CHECK(support::near(f.gradients.up.b, g.up.b, 1e-5));
      CHECK(support::near(f.gradients.down.a, g.down.a, 1e-5));
      CHECK(support::near(f.gradients.down.b, g.down.b, 1e-5));
    }
  }

  TEST_CASE("a second backward doubles the gradients and writes the same dx") {
    fixture once, twice;
    once.run(once.layer(), {});
    twice.run(twice.layer(), {});
    twice.run(twice.layer(), {});
    CHECK(twice.dx.values() == once.dx.values());
    auto expected = support::to_reference(once.gradients.down.b);
    for (double& value : expected.values) value *= 2;
    CHECK(support::near(twice.gradients.down.b, expected, 1e-6));
  }

  TEST_CASE("a projection of another size is refused by name") {
    const fixture f;
    auto frozen = f.frozen.view<layer_type::frozen>();
    std::swap(frozen.up, frozen.down);
    CHECK(support::message_of<pesc::shape_error>([&] { layer_type(f.shape, frozen, f.parameters); }) ==
          "up projection is 12 x 21, expected 21 x 12");
  }
}
