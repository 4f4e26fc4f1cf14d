// SPDX-License-Identifier: Apache-2.0
#include "pesc/moe/layer.hpp"

#include <doctest/doctest.h>

#include "support/host_isas.hpp"
#include "support/layer_bridge.hpp"
#include "support/random.hpp"

namespace {

using pesc::index_t;

struct case_sizes {
  index_t hidden, intermediate, experts, top_k, rank, lora_rank, tokens;
};

constexpr case_sizes all_sizes[] = {
    {4, 3, 4, 2, 2, 2, 3},    {32, 27, 8, 2, 8, 4, 33}, {64, 172, 16, 4, 5, 3, 17}, {65, 63, 3, 1, 7, 1, 5},
    {48, 96, 5, 5, 16, 8, 1}, {96, 64, 1, 1, 1, 2, 70}, {40, 130, 33, 6, 3, 0, 19},
};

struct float_layer : pesc::moe_dynamic<> {};
struct bf16_layer : pesc::moe_dynamic<pesc::bf16> {};

/// \brief Runs forward and backward and compares every output and gradient with the reference.
template <class Config>
void compare(pesc::cpu::isa level, const case_sizes& z, const pesc::format_info& format, double tolerance,
             const pesc::moe_options& options, bool balance) {
  using X = pesc::cpu_backend;
  X ctx(2, pesc::cpu::runtime_isa{level});
  const pesc::moe_shape shape{z.hidden, z.intermediate, z.experts, z.top_k, z.rank, z.lora_rank};
  pesc::moe_layer<Config, X> layer(ctx, shape, options, 7, &format);
  support::randomize(layer.parameters(), 11);
  const std::vector<float> x = support::normal_floats(z.tokens * z.hidden, 3);
  const std::vector<float> dy = support::normal_floats(z.tokens * z.hidden, 4);
  std::vector<float> y(x.size());
  std::vector<float> dx(x.size());
  const auto rows = [&](auto& list) { return pesc::matrix_view(list.data(), z.tokens, z.hidden); };
  const pesc::moe_run run{.training = true, .seed = 5, .step = 2, .layer = 1};

  auto buffers = layer.prepare(ctx, z.tokens);
  layer.forward(ctx, rows(x), rows(y), buffers, run);

  reference::layer_randomness random;
  if (options.adapter_dropout > 0.0f)
    random.adapter_masks = support::dropout_factors(run.stream(pesc::random_site::adapter_dropout),
                                                    z.tokens * z.top_k, z.hidden, options.adapter_dropout);
  const auto expected = support::to_reference(layer, run, z.tokens);
  const auto state = reference::layer_forward(expected, support::to_reference(rows(x)), random);
  for (index_t s = 0; s < z.tokens * z.top_k; ++s)
    REQUIRE(buffers.routing().expert[s] == state.routed.assignments[s].expert);
  CHECK(support::near(rows(y), state.y, tolerance));

  pesc::balance_pool pool(z.experts, z.top_k);
  pesc::balance_gradient<> gradient_of_balance;
  reference::logit_gradients auxiliary;
  if (balance) {
    pesc::buffer<std::byte> memory(1 << 20);
    pesc::workspace<> ws(memory.data(), memory.size());
    const auto& r = buffers.routing();
    balance_accumulate(ctx, pesc::as_const(r.logits), pesc::as_const(r.token), pesc::as_const(r.expert), {},
                       pool.sums(), ws);
    pesc::balance_options balance_options;
    balance_options.z_coefficient = 0.001f;
    gradient_of_balance = pool.gradient(ctx, balance_options);
    const auto pooled = reference::balance_loss({state.routed});
    const auto z_loss = reference::z_loss({state.routed});
    CHECK(pool.values(ctx, balance_options).balance == doctest::Approx(pooled.loss).epsilon(1e-5));
    CHECK(pool.values(ctx, {}).z == doctest::Approx(z_loss.loss).epsilon(1e-5));
    auxiliary.logits = reference::scaled(pooled.dlogits[0], 0.01);
    reference::add_to(auxiliary.logits, z_loss.dlogits[0], 0.001);
  }
  auto gradients = layer.make_gradients();
  layer.backward(ctx, rows(dy), rows(dx), gradients, buffers, gradient_of_balance);
  const auto g = reference::layer_backward(expected, state, support::to_reference(rows(dy)), auxiliary);
  CHECK(support::near(rows(dx), g.dx, tolerance));
  CHECK(support::near(gradients.views().router.weight, g.router.weight, tolerance, 1e-3));
  for (index_t e = 0; e < z.experts; ++e) {
    CHECK(support::near(gradients.views().experts.down[e], g.experts[e].down, tolerance, 1e-2));
    CHECK(support::near(gradients.views().experts.up[e], g.experts[e].up, tolerance, 1e-2));
  }
  if (z.lora_rank == 0) return;
  const auto& shared = gradients.views().shared;
  CHECK(support::near(shared.gate.a, g.ffn.gate.a, tolerance));
  CHECK(support::near(shared.gate.b, g.ffn.gate.b, tolerance));
  CHECK(support::near(shared.up.a, g.ffn.up.a, tolerance));
  CHECK(support::near(shared.up.b, g.ffn.up.b, tolerance));
  CHECK(support::near(shared.down.a, g.ffn.down.a, tolerance));
  CHECK(support::near(shared.down.b, g.ffn.down.b, tolerance));
}

pesc::format_info formats(int i) {
  switch (i) {
    case 0:
      return pesc::nf4<64, pesc::double_quant<>>::info();
    case 1:
      return pesc::nf4<32>::info();
    case 2:
      return pesc::fp4<128>::info();
    default:
      return pesc::unquantized<float>::info();
  }
}

}  // namespace

TEST_SUITE("moe/layer") {
  TEST_CASE("float compute agrees with the double reference on every instruction set, size and format") {
    for (const auto level : support::host_isas())
      for (const case_sizes& sizes : all_sizes)
        for (int format = 0; format < 4; ++format) {
          CAPTURE(pesc::cpu::name_of(level));
          CAPTURE(sizes.hidden);
          CAPTURE(format);
          compare<float_layer>(level, sizes, formats(format), 1e-5,
                               {.expert_scale = 0.25f, .lora_alpha = 2.0f}, format == 0);
        }
  }

  TEST_CASE("bf16 compute agrees with the double reference") {
    for (const auto level : support::host_isas())
      for (const case_sizes& sizes : all_sizes) {
        CAPTURE(pesc::cpu::name_of(level));
        CAPTURE(sizes.hidden);
        compare<bf16_layer>(level, sizes, formats(0), 2e-2, {.expert_scale = 0.5f, .lora_alpha = 2.0f},
                            false);
      }
  }

  TEST_CASE("dropout on adapters and LoRA, and computing the network again, change nothing else") {
    for (const case_sizes& sizes : all_sizes) {
      CAPTURE(sizes.hidden);
      compare<float_layer>(pesc::cpu::detect_isa(), sizes, formats(1), 1e-5,
                           {.expert_scale = 0.5f,
                            .adapter_dropout = 0.3f,
                            .lora_alpha = 2.0f,
                            .lora_dropout = 0.2f,
                            .recompute_ffn = true},
                           true);
    }
  }
}
