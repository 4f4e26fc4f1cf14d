// SPDX-License-Identifier: Apache-2.0
#include "pesc/moe/shared_ffn.hpp"

#include <vector>

#include <doctest/doctest.h>

#include "moe/stage_test.hpp"

namespace {

using pesc::index_t;
using support::numbers;

static_assert(pesc::SharedPath<pesc::gated_ffn<pesc::gelu>>);
static_assert(!pesc::SharedPath<pesc::gelu>);

constexpr index_t hidden = 11;
constexpr index_t intermediate = 18;
constexpr index_t tokens = 6;
constexpr pesc::moe_shape shape{.hidden = hidden, .intermediate = intermediate, .lora_rank = 2};
using format = pesc::unquantized<float>;

/// A network with biases.
template <class Act>
struct fixture {
  using path = pesc::gated_ffn<Act>;
  using frozen_type = typename path::template frozen<format, pesc::host_space>;
  using parameters = typename path::template parameters<pesc::host_space>;

  support::plain_context ctx;
  numbers gate{intermediate, hidden, 1, 0.3}, up{intermediate, hidden, 2, 0.3},
      down{hidden, intermediate, 3, 0.3};
  numbers gate_bias{1, intermediate, 4}, up_bias{1, intermediate, 5}, down_bias{1, hidden, 6};
  pesc::frozen_ffn<format> owned{ctx, format::info(),
                                 pesc::dense_ffn<float>{gate.view(), up.view(), down.view()}};
  frozen_type frozen = owned.view<frozen_type>();
  pesc::buffer<float> memory{2048}, gradient_memory{2048};
  parameters p = carve(memory), g = carve(gradient_memory);
  numbers x{tokens, hidden, 7}, dh{tokens, hidden, 8}, dx{tokens, hidden, 9};
  pesc::buffer<std::byte> kept;
  typename path::template state<pesc::host_space> state;

  explicit fixture(bool recompute = false)
      : state(support::keep(kept, [&](pesc::workspace<>& ws) {
          return path::template state<pesc::host_space>::carve(ws, shape, tokens, recompute);
        })) {
    frozen.gate.bias = gate_bias.list();
    frozen.up.bias = up_bias.list();
    frozen.down.bias = down_bias.list();
    support::randomize(p, 10);
  }

  static parameters carve(pesc::buffer<float>& block) {
    pesc::parameter_arena<> arena(block.data(), block.size());
    return parameters::carve(arena, shape);
  }
  void run() {
    support::run_stage([&](pesc::workspace<>& ws) {
      pesc::shared_forward<float>(ctx, path{}, x.read(), frozen, p, state, shape, {}, {}, ws);
    });
    support::run_stage([&](pesc::workspace<>& ws) {
      pesc::shared_backward<float>(ctx, path{}, x.read(), frozen, p, state, dh.read(), dx.view(), g, shape,
                                   {}, {}, ws);
    });
  }
};

reference::activation kind_of(pesc::silu) { return reference::activation::silu; }
reference::activation kind_of(pesc::gelu_tanh) { return reference::activation::gelu_tanh; }

}  // namespace

TEST_SUITE("moe/shared_ffn") {
  TEST_CASE_TEMPLATE("forward and backward with biases agree with the double reference", Act, pesc::silu,
                     pesc::gelu_tanh) {
    fixture<Act> f;
    const reference::matrix dx = f.dx.exact();
    f.run();
    auto ffn = support::reference_ffn(f.frozen, f.p, shape, {}, {}, tokens);
    ffn.act = kind_of(Act{});
    const auto s = reference::ffn_forward(ffn, f.x.exact());
    auto g = reference::ffn_backward(ffn, s, f.dh.exact());
    CHECK(support::near(f.state.out, s.out, 1e-5));
    CHECK(support::near(f.state.gate, s.gate, 1e-5));
    CHECK(support::near(f.state.up, s.up, 1e-5));
    add_to(g.dx, dx);  // added to what was there
    CHECK(support::near(f.dx.view(), g.dx, 1e-5));
    CHECK(support::near(f.g.gate.a, g.gate.a, 1e-5));
    CHECK(support::near(f.g.up.b, g.up.b, 1e-5));
    CHECK(support::near(f.g.down.a, g.down.a, 1e-5));
    CHECK(support::near(f.g.down.b, g.down.b, 1e-5));
  }

  TEST_CASE("computing the network again gives the same bits") {
    fixture<pesc::silu> kept(false);
    fixture<pesc::silu> again(true);
    kept.run();
    again.run();
    CHECK(again.state.gate.empty());
    CHECK(again.dx.values() == kept.dx.values());
    CHECK(std::equal(again.gradient_memory.data(), again.gradient_memory.data() + 2048,
                     kept.gradient_memory.data()));
  }

  TEST_CASE("projections and biases of other sizes are refused by name") {
    fixture<pesc::silu> f;
    const auto refused = [](const auto& frozen) {
      return support::message_of<pesc::shape_error>([&] { frozen.check(shape); });
    };
    CHECK(refused(f.frozen) == "no error");
    auto swapped = f.frozen;
    std::swap(swapped.gate, swapped.down);
    CHECK(refused(swapped) == "gate projection is 11 x 18, expected 18 x 11");
    auto biased = f.frozen;
    biased.down.bias = f.gate_bias.list();
    CHECK(refused(biased) == "down bias has 18 entries, expected 11");
  }
}
