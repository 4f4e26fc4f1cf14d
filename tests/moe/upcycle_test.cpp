// SPDX-License-Identifier: Apache-2.0
#include "pesc/moe/upcycle.hpp"

#include <limits>
#include <vector>

#include <doctest/doctest.h>

#include "moe/stage_test.hpp"

namespace {

using pesc::index_t;
using backend = support::plain_context;

constexpr index_t hidden = 20;
constexpr index_t intermediate = 33;
constexpr index_t tokens = 9;
constexpr pesc::moe_shape shape{hidden, intermediate, 5, 3, 4, 2};

template <class Weight>
struct config : pesc::moe_dynamic<> {
  using weight = Weight;
};

struct dense_weights {
  support::numbers gate{intermediate, hidden, 1, 0.3}, up{intermediate, hidden, 2, 0.3},
      down{hidden, intermediate, 3, 0.3};
  [[nodiscard]] pesc::dense_ffn<float> view() const { return {gate.view(), up.view(), down.view()}; }
};

}  // namespace

TEST_SUITE("moe/upcycle") {
  TEST_CASE_TEMPLATE("an upcycled layer computes exactly what its dense network computes", Weight,
                     pesc::nf4<64, pesc::double_quant<>>, pesc::fp4<32>, pesc::unquantized<float>) {
    backend ctx;
    const dense_weights weights;
    using layer_type = pesc::moe_layer<config<Weight>, backend>;
    const layer_type layer(ctx, shape, weights.view(), {.expert_scale = 3.0f}, 4);
    auto buffers = layer.prepare(ctx, tokens);
    support::layer_run io(layer, tokens);
    io.forward(ctx, layer, buffers, {.training = true});

    const pesc::dense_layer<config<Weight>, backend> dense(layer.shape(), layer.weights(),
                                                           layer.parameters().shared, layer.options());
    pesc::buffer<std::byte> memory;
    auto state = support::keep(memory, [&](pesc::workspace<>& ws) { return dense.carve_state(ws, tokens); });
    std::vector<float> y(io.y.size());
    support::run_stage([&](pesc::workspace<>& ws) {
      dense.forward(ctx, io.rows(std::as_const(io.x)), io.rows(y), state, {}, ws);
    });
    CHECK(io.y == y);

    // Its first gradients move the matrices that close a path, and nothing else of the experts.
    io.backward(ctx, layer, buffers);
    const auto& g = io.gradients.views();
    const auto is_zero = [](pesc::batch_view<float> m) {
      return std::all_of(m.data, m.data + m.size(), [](float v) { return v == 0.0f; });
    };
    CHECK(is_zero(g.experts.down));
    CHECK(is_zero(pesc::as_batch(g.router.weight)));
    CHECK_FALSE(is_zero(g.experts.up));
    CHECK(is_zero(pesc::as_batch(g.shared.gate.a)));
    CHECK_FALSE(is_zero(pesc::as_batch(g.shared.gate.b)));

    support::randomize(layer.parameters(), 1);
    io.forward(ctx, layer, buffers);
    CHECK_FALSE(io.y == y);
  }

  TEST_CASE("without quantisation the layer has the numbers of the dense network in double") {
    backend ctx;
    const dense_weights weights;
    using layer_type = pesc::moe_layer<config<pesc::unquantized<float>>, backend>;
    const layer_type layer(ctx, shape, weights.view());
    auto buffers = layer.prepare(ctx, tokens);
    support::layer_run io(layer, tokens);
    io.forward(ctx, layer, buffers);
    reference::gated_ffn ffn;
    ffn.gate.weight = weights.gate.exact();
    ffn.up.weight = weights.up.exact();
    ffn.down.weight = weights.down.exact();
    const auto expected = reference::ffn_forward(ffn, support::to_reference(io.rows(std::as_const(io.x))));
    CHECK(support::near(io.rows(io.y), expected.out, 1e-5));
  }

  TEST_CASE("a weight that is not finite is refused with its position") {
    backend ctx;
    dense_weights weights;
    weights.up(2, 5) = std::numeric_limits<float>::quiet_NaN();
    using format = pesc::nf4<64>;
    CHECK(support::message_of<pesc::numeric_error>([&] {
            static_cast<void>(pesc::frozen_ffn<format>(ctx, format::info(), weights.view()));
          }) == "weight 45 is not finite and cannot be quantised to nf4");
  }

  TEST_CASE("the frozen bytes are those of the three packed weights") {
    backend ctx;
    const dense_weights weights;
    using format = pesc::nf4<64>;
    const pesc::frozen_ffn<format> frozen(ctx, format::info(), weights.view());
    // 33 x 20 and 20 x 33 each fill one cell of 64 x 64 codes; rows that straddle blocks hold two scales.
    CHECK(frozen.bytes() == 3 * (64 * 64 / 2 + 2 * 64 * 4));
    CHECK(pesc::frozen_ffn<format>{}.bytes() == 0);
  }

  TEST_CASE("a dynamic format must be given, a static one must agree") {
    using open = pesc::moe_dynamic<>;
    CHECK(support::message_of<pesc::shape_error>([] { static_cast<void>(pesc::format_of<open>()); }) ==
          "the weight format is dynamic in this configuration and must be given");
    const pesc::format_info fp4 = pesc::fp4<64>::info();
    CHECK(pesc::format_of<open>(&fp4) == fp4);
    CHECK(pesc::format_of<config<pesc::nf4<64>>>() == pesc::nf4<64>::info());
    CHECK(support::message_of<pesc::shape_error>([&] {
            static_cast<void>(pesc::quantized_matrix<pesc::nf4<64>, pesc::row_blocks>(fp4, 2, 64));
          }) == "weights are stored as fp4 in blocks of 64, this type is compiled for nf4 in blocks of 64");
  }
}
