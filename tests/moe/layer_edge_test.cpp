// SPDX-License-Identifier: Apache-2.0
// What a layer refuses, and the smallest calls that it takes.

#include <limits>
#include <vector>

#include <doctest/doctest.h>

#include "moe/stage_test.hpp"

namespace {

using pesc::index_t;
using backend = support::plain_context;
using pesc::moe_options;

struct config : pesc::moe_dynamic<> {
  using weight = pesc::nf4<64>;
};
using layer_type = pesc::moe_layer<config, backend>;

constexpr pesc::moe_shape shape{12, 20, 4, 2, 3, 2};

template <class Action>
std::string refused(Action&& action) {
  return support::message_of<pesc::shape_error>(action);
}

/// Memory for `rows` rows of `cols` numbers.
struct rows_of {
  std::vector<float> memory;
  index_t rows, cols;
  rows_of(index_t r, index_t c) : memory(static_cast<std::size_t>(r * c + 1)), rows{r}, cols{c} {}
  operator pesc::matrix_view<float>() { return {memory.data(), rows, cols}; }
  operator pesc::matrix_view<const float>() const { return {memory.data(), rows, cols}; }
};

}  // namespace

TEST_SUITE("moe/layer_edge") {
  TEST_CASE("rows of another width or number are refused with both numbers") {
    backend ctx;
    const layer_type layer(ctx, shape);
    auto buffers = layer.prepare(ctx, 4);
    const rows_of good(3, 12), narrow(3, 11), many(5, 12);
    rows_of out(3, 12), wide_out(3, 13), short_out(2, 12), many_out(5, 12);
    auto gradients = layer.make_gradients();
    CHECK(refused([&] { layer.forward(ctx, narrow, out, buffers); }) ==
          "x has 11 columns, the layer's hidden size is 12");
    CHECK(refused([&] { layer.forward(ctx, good, wide_out, buffers); }) ==
          "y has 13 columns, the layer's hidden size is 12");
    CHECK(refused([&] { layer.forward(ctx, good, short_out, buffers); }) == "y has 2 rows, expected 3");
    CHECK(refused([&] { layer.forward(ctx, many, many_out, buffers); }) ==
          "x has 5 rows, the buffers were prepared for 4");
    // A refused call leaves layer and buffers usable.
    CHECK(refused([&] { layer.forward(ctx, good, out, buffers); }) == "no error");
    CHECK(refused([&] { layer.backward(ctx, many, many_out, gradients, buffers); }) ==
          "dy has 5 rows, expected 3");
    CHECK(refused([&] { layer.backward(ctx, good, short_out, gradients, buffers); }) ==
          "dx has 2 rows, expected 3");
    CHECK(refused([&] { layer.backward(ctx, good, out, gradients, buffers); }) == "no error");
  }

  TEST_CASE("buffers are for at least one token, and backward needs a forward") {
    backend ctx;
    const layer_type layer(ctx, shape);
    CHECK(refused([&] { static_cast<void>(layer.prepare(ctx, 0)); }) ==
          "buffers for 0 tokens: at least one is needed");
    auto buffers = layer.prepare(ctx, 4);
    const rows_of dy(3, 12);
    rows_of dx(3, 12);
    auto gradients = layer.make_gradients();
    CHECK(refused([&] { layer.backward(ctx, dy, dx, gradients, buffers); }) == "dy has 3 rows, expected 0");
  }

  TEST_CASE("buffers for inference are smaller, give the same bits, and are refused for training") {
    backend ctx;
    const layer_type layer(ctx, shape, {.adapter_dropout = 0.5f});
    support::randomize(layer.parameters(), 3);
    auto all = layer.prepare(ctx, 40);
    auto forward_only = layer.prepare_inference(ctx, 40);
    CHECK(layer.scratch_bytes(ctx, 40) > 0);
    for (pesc::index_t tokens = 40; tokens >= 0; --tokens) {
      support::layer_run a(layer, tokens);
      support::layer_run b(layer, tokens);
      a.forward(ctx, layer, all);
      b.forward(ctx, layer, forward_only);
      REQUIRE(support::same_bits(a.y, b.y));
    }
    support::layer_run io(layer, 3);
    CHECK(refused([&] { io.forward(ctx, layer, forward_only, {.training = true}); }) ==
          "training with buffers of prepare_inference: prepare them with prepare");
    CHECK(refused([&] { io.backward(ctx, layer, forward_only); }) ==
          "backward with buffers of prepare_inference: prepare them with prepare");
  }

  TEST_CASE("options out of range are refused, when the layer is made and when they are changed") {
    backend ctx;
    const auto made_with = [&](const moe_options& options) {
      return refused([&] { layer_type(ctx, shape, options); });
    };
    const float nan = std::numeric_limits<float>::quiet_NaN();
    CHECK(made_with({.adapter_dropout = 1.0f}) == "adapter dropout 1: must be at least 0 and below 1");
    CHECK(made_with({.adapter_dropout = nan}) == "adapter dropout nan: must be at least 0 and below 1");
    CHECK(made_with({.lora_dropout = -0.5f}) == "LoRA dropout -0.5: must be at least 0 and below 1");
    CHECK(made_with({.expert_scale = nan}) == "expert scale and LoRA alpha must be finite");
    CHECK(made_with({.lora_alpha = std::numeric_limits<float>::infinity()}) ==
          "expert scale and LoRA alpha must be finite");
    layer_type layer(ctx, shape, {.expert_scale = 0.5f});
    CHECK(refused([&] { layer.set_options({.adapter_dropout = 2.0f}); }) ==
          "adapter dropout 2: must be at least 0 and below 1");
    CHECK(layer.options().expert_scale == 0.5f);
    CHECK(layer.options().adapter_dropout == 0.0f);
  }

  TEST_CASE("a shape, weights or a format that do not fit are refused") {
    backend ctx;
    CHECK(refused([&] {
            layer_type(ctx, {12, 20, 2, 3, 3, 0});
          }) == "top-k of 3 with 2 experts: must be 1 to the number of experts");
    CHECK(refused([&] {
            layer_type(ctx, {12, 20, 4, 2, 13, 0});
          }) == "adapter rank 13 is larger than the hidden size 12");
    const std::vector<float> w(12 * 20, 0.1f);
    const pesc::dense_ffn<float> turned{{w.data(), 12, 20}, {w.data(), 20, 12}, {w.data(), 12, 20}};
    CHECK(refused([&] { layer_type(ctx, shape, turned); }) == "gate projection is 12 x 20, expected 20 x 12");
    using open = pesc::moe_layer<pesc::moe_dynamic<>, backend>;
    CHECK(refused([&] { open(ctx, shape); }) ==
          "the weight format is dynamic in this configuration and must be given");
  }

  TEST_CASE("trainable views that were carved for another shape are refused") {
    backend ctx;
    const layer_type made(ctx, shape);
    pesc::moe_shape other = shape;
    other.experts = 3;
    const pesc::owned_parameters<config> few(other);
    CHECK(refused([&] { layer_type(shape, made.weights(), few); }) ==
          "router of 1 x 3 x 12, expected 1 x 4 x 12");
    other = shape;
    other.lora_rank = 0;
    const pesc::owned_parameters<config> plain(other);
    CHECK(refused([&] { layer_type(shape, made.weights(), plain); }) ==
          "a layer of this shape has 9 trainable tensors, found 3");
    CHECK(refused([&] { layer_type(other, made.weights(), made.parameters()); }) ==
          "gate_proj.lora_A is not a parameter of a layer of this shape");
  }

  TEST_CASE("no row at all is a call like any other: nothing is written and nothing added") {
    backend ctx;
    const layer_type layer(ctx, shape);
    auto buffers = layer.prepare(ctx, 4);
    auto gradients = layer.make_gradients();
    pesc::balance_pool pool(4, 2);
    layer.forward(ctx, {nullptr, 0, 12}, {nullptr, 0, 12}, buffers, {.training = true});
    layer.pool_balance(ctx, pool, buffers);
    layer.backward(ctx, {nullptr, 0, 12}, {nullptr, 0, 12}, gradients, buffers, pool.gradient(ctx, {}));
    for (index_t e = 0; e < 4; ++e) CHECK(buffers.load(e) == 0);
    CHECK(std::all_of(gradients.arena().begin(), gradients.arena().end(), [](float v) { return v == 0.0f; }));
    CHECK(pool.values(ctx, {}).balance == 0.0);
  }

  TEST_CASE("one token, one expert, and every expert for every token agree with the double reference") {
    backend ctx;
    for (const pesc::moe_shape& s :
         {pesc::moe_shape{12, 20, 1, 1, 3, 0}, pesc::moe_shape{12, 20, 5, 5, 12, 12},
          pesc::moe_shape{1, 1, 2, 1, 1, 1}})
      for (const index_t tokens : {1, 6}) {
        const layer_type layer(ctx, s, {.expert_scale = 0.5f});
        support::randomize(layer.parameters(), 3);
        auto buffers = layer.prepare(ctx, tokens);
        support::layer_run io(layer, tokens);
        io.forward(ctx, layer, buffers);
        io.backward(ctx, layer, buffers);
        const auto expected = support::to_reference(layer);
        const auto state = reference::layer_forward(expected, support::to_reference(io.rows(io.x)));
        const auto g = reference::layer_backward(expected, state, support::to_reference(io.rows(io.dy)));
        CHECK(support::near(io.rows(io.y), state.y, 1e-5));
        CHECK(support::near(io.rows(io.dx), g.dx, 1e-5));
        CHECK(support::near(io.gradients.views().router.weight, g.router.weight, 1e-5, 1e-2));
      }
  }

  TEST_CASE("a layer can be moved, and its buffers with it") {
    backend ctx;
    layer_type first(ctx, shape);
    support::randomize(first.parameters(), 3);
    auto buffers = first.prepare(ctx, 5);
    support::layer_run before(first, 5);
    before.forward(ctx, first, buffers);
    const layer_type second = std::move(first);
    auto moved = std::move(buffers);
    support::layer_run after(second, 5);
    after.forward(ctx, second, moved);
    CHECK(support::same_bits(after.y, before.y));
  }
}
