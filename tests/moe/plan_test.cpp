// SPDX-License-Identifier: Apache-2.0
#include "pesc/moe/plan.hpp"

#include <doctest/doctest.h>

#include "moe/stage_test.hpp"

namespace {

using pesc::index_t;
using backend = support::plain_context;

struct config : pesc::moe_dynamic<> {};
struct half_config : pesc::moe_dynamic<> {
  using activation = pesc::bf16;
};

using plan = pesc::staged_plan<config, backend>;
using layer_type = pesc::moe_layer<config, backend>;

static_assert(std::is_same_v<pesc::plan_for<config, backend>, plan>);
static_assert(!plan::converts);
static_assert(pesc::staged_plan<half_config, backend>::converts);

constexpr index_t tokens = 7;
constexpr pesc::moe_shape shape{16, 40, 4, 2, 3, 2};

template <class Config>
index_t kept_bytes(const pesc::moe_options& options, index_t rows = tokens) {
  const typename Config::router router(shape);
  pesc::workspace<> counting;
  static_cast<void>(pesc::staged_plan<Config, backend>::carve(counting, router, shape, rows, options));
  return counting.peak();
}

}  // namespace

TEST_SUITE("moe/plan") {
  TEST_CASE("the stages run by name give the bits of the layer") {
    backend ctx;
    const pesc::format_info format = pesc::nf4<64>::info();
    const layer_type layer(ctx, shape, {.expert_scale = 0.5f}, 1, &format);
    support::randomize(layer.parameters(), 2);
    auto buffers = layer.prepare(ctx, tokens);
    support::layer_run expected(layer, tokens);
    const pesc::moe_run run{.training = true};
    expected.forward(ctx, layer, buffers, run);
    expected.backward(ctx, layer, buffers);

    support::layer_run io(layer, tokens);
    const config::router router(layer.shape());
    pesc::buffer<std::byte> memory;
    auto state = support::keep(memory, [&](pesc::workspace<>& ws) {
      return plan::carve(ws, router, layer.shape(), tokens, layer.options());
    });
    support::run_stage([&](pesc::workspace<>& ws) {
      plan::forward(ctx, router, io.rows(std::as_const(io.x)), layer.weights(), layer.parameters(),
                    io.rows(io.y), state, layer.shape(), layer.options(), run, ws);
    });
    support::run_stage([&](pesc::workspace<>& ws) {
      plan::backward(ctx, router, io.rows(std::as_const(io.dy)), layer.weights(), layer.parameters(),
                     io.rows(io.dx), io.gradients, state, {}, layer.shape(), layer.options(), run, ws);
    });
    CHECK(support::same_bits(io.results(), expected.results()));
  }

  TEST_CASE("computing the network again keeps less, rows in bf16 keep a copy in float") {
    const index_t all = kept_bytes<config>({});
    CHECK(kept_bytes<config>({.recompute_ffn = true}) == all - 2 * pesc::round_up(tokens * 40 * 4, 64));
    CHECK(kept_bytes<half_config>({}) == all + pesc::round_up(tokens * 16 * 4, 64));
    CHECK(kept_bytes<config>({}, 0) < kept_bytes<config>({}, 1));
  }

  TEST_CASE("a workspace that is too small is refused with the bytes needed") {
    backend ctx;
    const pesc::format_info format = pesc::nf4<64>::info();
    const layer_type layer(ctx, shape, {}, 1, &format);
    const config::router router(layer.shape());
    const index_t needed = layer.state_bytes(tokens);
    pesc::buffer<std::byte> memory(needed);
    pesc::workspace<> tight(memory.data(), needed - 64);
    CHECK(support::message_of<pesc::shape_error>([&] {
            static_cast<void>(plan::carve(tight, router, layer.shape(), tokens, layer.options()));
          }) == pesc::detail::concat("workspace of ", needed - 64,
                                     " bytes is too small, this call needs at least ", needed));
  }
}
