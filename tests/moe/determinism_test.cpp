// SPDX-License-Identifier: Apache-2.0
// Results do not depend on the number of threads.

#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "pesc/pesc.hpp"
#include "support/host_isas.hpp"
#include "support/layer_run.hpp"

namespace {

using pesc::index_t;
using backend = pesc::cpu_backend;

template <class Compute>
struct layer_config : pesc::moe_dynamic<Compute> {};

// Enough rows and columns that every loop is cut into several chunks.
constexpr pesc::moe_shape shape{
    .hidden = 136, .intermediate = 300, .experts = 6, .top_k = 3, .rank = 20, .lora_rank = 8};

/// Three training steps; returns all results of the last and the parameters after it.
template <class Config>
std::vector<float> train(pesc::cpu::isa level, int threads, index_t tokens, const pesc::format_info& format) {
  backend ctx(threads, pesc::cpu::runtime_isa{level});
  const pesc::moe_options options{.expert_scale = 0.5f, .adapter_dropout = 0.1f, .lora_dropout = 0.1f};
  const pesc::moe_layer<Config, backend> made(ctx, shape, options, 1, &format);
  // The same layer over an arena of the test, so that the optimiser can walk over it.
  pesc::owned_parameters<Config> parameters(made.shape());
  const pesc::moe_layer<Config, backend> layer(shape, made.weights(), parameters, options);
  support::fill_trainables(layer.parameters(), 1);
  auto m = layer.make_gradients();
  auto v = layer.make_gradients();
  auto buffers = layer.prepare(ctx, tokens);
  support::layer_run io(layer, tokens);
  pesc::balance_pool pool(shape.experts, shape.top_k);
  for (std::uint32_t step = 0; step < 3; ++step) {
    fill(ctx, io.gradients.arena(), 0.0f);
    io.forward(ctx, layer, buffers, {.training = true, .seed = 3, .step = step});
    pool.clear(ctx);
    layer.pool_balance(ctx, pool, buffers);
    io.backward(ctx, layer, buffers, pool.gradient(ctx, {.coefficient = 0.01f, .z_coefficient = 0.001f}));
    const double norm = std::sqrt(squared_norm(ctx, std::as_const(io.gradients).arena()));
    adamw_step(
        ctx, parameters.arena(), std::as_const(io.gradients).arena(), m.arena(), v.arena(),
        pesc::adamw_step_coefficients({.weight_decay = 0.01}, 1e-2, step + 1, pesc::clip_factor(norm, 1.0)));
  }
  std::vector<float> out = io.results();
  out.insert(out.end(), parameters.arena().begin(), parameters.arena().end());
  return out;
}

template <class Config>
void check_threads(index_t tokens, const pesc::format_info& format) {
  for (const auto level : support::host_isas()) {
    CAPTURE(std::string(pesc::cpu::name_of(level)));
    const std::vector<float> alone = train<Config>(level, 1, tokens, format);
    for (const int threads : {2, 3, 8}) {
      CAPTURE(threads);
      CHECK(support::same_bits(train<Config>(level, threads, tokens, format), alone));
    }
  }
}

}  // namespace

TEST_SUITE("moe/determinism") {
  TEST_CASE("three training steps give the same bits for 1, 2, 3 and 8 threads") {
    check_threads<layer_config<float>>(100, pesc::nf4<64, pesc::double_quant<>>::info());
    check_threads<layer_config<float>>(1, pesc::nf4<64, pesc::double_quant<>>::info());
    check_threads<layer_config<float>>(40, pesc::unquantized<pesc::bf16>::info());
  }

  TEST_CASE("with bf16 products, three training steps give the same bits for 1, 2, 3 and 8 threads") {
    check_threads<layer_config<pesc::bf16>>(100, pesc::nf4<32>::info());
    check_threads<layer_config<pesc::bf16>>(3, pesc::nf4<64, pesc::double_quant<>>::info());
  }

  TEST_CASE("another seed gives other results, so the comparison sees differences") {
    backend ctx;
    const pesc::format_info format = pesc::nf4<64>::info();
    const pesc::moe_layer<layer_config<float>, backend> layer(ctx, shape, {.adapter_dropout = 0.1f}, 1,
                                                              &format);
    support::fill_trainables(layer.parameters(), 1);
    auto buffers = layer.prepare(ctx, 20);
    support::layer_run first(layer, 20);
    support::layer_run second(layer, 20);
    first.forward(ctx, layer, buffers, {.training = true, .seed = 1});
    second.forward(ctx, layer, buffers, {.training = true, .seed = 2});
    CHECK_FALSE(support::same_bits(first.y, second.y));
    second.forward(ctx, layer, buffers, {.training = true, .seed = 1});
    CHECK(support::same_bits(first.y, second.y));
  }
}
