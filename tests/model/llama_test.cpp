// SPDX-License-Identifier: Apache-2.0
#include "pesc/model/llama.hpp"

#include <doctest/doctest.h>

#include "pesc/model/generate.hpp"
#include "support/host_isas.hpp"
#include "support/model_bridge.hpp"

namespace {

using pesc::index_t;
using X = pesc::cpu_backend;

template <pesc::Compute C>
using sparse = pesc::llama<pesc::moe_layer<pesc::moe_dynamic<C>, X>>;
template <pesc::Compute C>
using dense = pesc::llama<pesc::dense_layer<pesc::moe_dynamic<C>, X>>;

constexpr pesc::llama_shape small{.vocabulary = 37,
                                  .hidden = 24,
                                  .intermediate = 20,
                                  .layers = 2,
                                  .heads = 4,
                                  .kv_heads = 2,
                                  .head_dim = 6};
constexpr pesc::moe_shape experts{24, 20, 5, 2, 3, 2};
constexpr pesc::moe_options options{.expert_scale = 0.5f, .lora_alpha = 3.0f};

/// \brief Two documents and two rows of padding.
struct tokens {
  std::vector<std::int32_t> ids{3, 17, 5, 36, 0, 9, 9, 21, 30, 2, 11, 0, 0};
  std::vector<std::int32_t> positions{0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 0, 0};
  std::vector<std::int32_t> targets{17, 5, -1, 0, 9, 9, 21, -1, 2, 11, 8, -1, -1};
  std::vector<std::uint8_t> valid{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0};
  std::vector<pesc::attention_span> spans{{0, 7, 0, 0}, {7, 11, 7, 0}, {11, 12, 11, 0}, {12, 13, 12, 0}};

  [[nodiscard]] index_t size() const { return static_cast<index_t>(ids.size()); }
  [[nodiscard]] pesc::model_input<> input() const {
    return {{ids.data(), size()},
            {positions.data(), size()},
            {spans.data(), static_cast<index_t>(spans.size())},
            {targets.data(), size()},
            {valid.data(), size()}};
  }
  [[nodiscard]] reference::batch batch() const {
    reference::batch b;
    for (index_t i = 0; i < size(); ++i) {
      const auto at = static_cast<std::size_t>(i);
      b.tokens.push_back(ids[at]);
      b.targets.push_back(targets[at]);
      b.positions.push_back(positions[at]);
      b.documents.push_back(i < 7 ? 0 : 1 + (i >= 11) + (i >= 12));
      b.rows.push_back(static_cast<char>(valid[at]));
    }
    return b;
  }
};

template <class Trainables>
void compare_lora(const Trainables& actual, const reference::linear_gradients& expected, double tolerance) {
  CHECK(support::near(actual.a, expected.a, tolerance));
  CHECK(support::near(actual.b, expected.b, tolerance));
}

template <class Model>
void compare(X& ctx, const pesc::model_weights<pesc::any_format>& weights, double tolerance,
             std::uint64_t seed = 100) {
  pesc::buffer<float> arena(Model::parameter_count(weights.shape, experts));
  const Model model(weights, experts, options, arena.view());
  for (const auto& layer : model.parameters()) {
    support::randomize(layer.attention, seed += 20);
    support::randomize(layer.ffn, seed += 20);
  }
  const tokens t;
  pesc::buffer<std::byte> memory(1 << 24);
  pesc::workspace<> ws(memory.data(), memory.size());
  auto state = model.carve_state(ws, t.size(), true);
  auto dhidden = ws.take<float>(t.size(), weights.shape.hidden);
  auto dx = ws.take<float>(t.size(), weights.shape.hidden);
  auto losses = ws.take<float>(t.size());
  auto logits = ws.take<float>(t.size(), weights.shape.vocabulary);
  const pesc::moe_run run{.training = true};
  pesc::balance_pool pool(experts.experts, experts.top_k);
  model.forward(ctx, t.input(), state, run, nullptr, &pool, ws);
  model.logits(ctx, pesc::as_const(state.hidden), logits, ws);

  const auto expected = support::to_reference_model(model);
  const auto batch = t.batch();
  const bool routed = Model::config_routed();
  const reference::loss_options loss_options{routed ? 0.01 : 0.0, routed ? 0.001 : 0.0};
  const auto s =
      reference::model_loss(expected, reference::embed(expected, batch.tokens), batch, loss_options);
  CHECK(support::near(logits, s.logits, tolerance));

  const double targets = 9;
  model.loss(ctx, t.input(), state, static_cast<float>(1 / targets), losses, dhidden, ws);
  double sum = 0;
  for (const float loss : losses) sum += static_cast<double>(loss);
  CHECK(sum / targets == doctest::Approx(s.task.loss).epsilon(tolerance));
  pesc::balance_options balance;
  balance.z_coefficient = 0.001f;
  if (routed) CHECK(pool.values(ctx, balance).balance == doctest::Approx(s.balance.loss).epsilon(tolerance));
  if (routed) CHECK(pool.values(ctx, balance).z == doctest::Approx(s.z.loss).epsilon(tolerance));

  pesc::buffer<float> gradient_arena(arena.size());
  const auto gradient = model.views_over(gradient_arena.view());
  model.backward(ctx, t.input(), state, pesc::as_const(dhidden), gradient,
                 pool.gradient(ctx, balance, t.input().valid), run, dx, ws);
  const auto g = reference::model_backward(expected, s, batch, loss_options);
  CHECK(support::near(dx, g.dx0, tolerance));
  for (index_t l = 0; l < weights.shape.layers; ++l) {
    CAPTURE(l);
    const auto& actual = gradient[static_cast<std::size_t>(l)];
    const auto& attend = g.blocks[l].attend;
    compare_lora(actual.attention.q, attend.q, tolerance);
    compare_lora(actual.attention.k, attend.k, tolerance);
    compare_lora(actual.attention.v, attend.v, tolerance);
    compare_lora(actual.attention.o, attend.o, tolerance);
    const auto& mlp = g.blocks[l].mlp;
    if constexpr (Model::config_routed()) {
      compare_lora(actual.ffn.shared.gate, mlp.ffn.gate, tolerance);
      compare_lora(actual.ffn.shared.down, mlp.ffn.down, tolerance);
      CHECK(support::near(actual.ffn.router.weight, mlp.router.weight, tolerance));
      for (index_t e = 0; e < experts.experts; ++e) {
        CHECK(support::near(actual.ffn.experts.down[e], mlp.experts[e].down, tolerance, 1e-2));
        CHECK(support::near(actual.ffn.experts.up[e], mlp.experts[e].up, tolerance, 1e-2));
      }
    } else {
      compare_lora(actual.ffn.up, mlp.ffn.up, tolerance);
    }
  }
}

}  // namespace

TEST_SUITE("model/llama") {
  TEST_CASE("logits, losses and every gradient agree with the double reference on every instruction set") {
    pesc::llama_shape shape = small;
    for (int variant = 0; variant < 4; ++variant) {
      CAPTURE(variant);
      shape.rope.pairing = variant % 2 == 0 ? pesc::rope_pairing::halves : pesc::rope_pairing::neighbours;
      if (variant == 2) shape.rope.scaling = pesc::rope_scaling::linear;
      if (variant == 3) shape.rope.scaling = pesc::rope_scaling::llama3;
      shape.rope.factor = variant >= 2 ? 4.0 : 1.0;
      shape.rope.original_positions = 16;
      const auto format =
          variant == 0 ? pesc::nf4<64, pesc::double_quant<>>::info() : pesc::unquantized<float>::info();
      const auto weights = support::random_model(shape, format, 5, variant % 2 == 0, variant == 1);
      for (const auto level : support::host_isas()) {
        CAPTURE(pesc::cpu::name_of(level));
        X ctx(2, pesc::cpu::runtime_isa{level});
        compare<sparse<float>>(ctx, weights, 1e-5);
        compare<dense<float>>(ctx, weights, 1e-5);
        // A seed whose routing margins are wider than the rounding: a token that changes its expert is no rounding error.
        if (variant == 0) compare<sparse<pesc::bf16>>(ctx, weights, 2e-2, 3);
      }
    }
  }

  TEST_CASE("decoding with a cache, in pieces of any size, gives the logits of one long call") {
    const auto weights = support::random_model(small, pesc::nf4<>::info(), 9, true, false);
    X ctx(1);
    pesc::buffer<float> arena(sparse<float>::parameter_count(weights.shape, experts));
    const sparse<float> model(weights, experts, options, arena.view());
    model.initialize(3);
    std::vector<std::int32_t> ids;
    for (int i = 0; i < 300; ++i) ids.push_back((i * 7 + i / 5) % 37);
    pesc::decoder<sparse<float>> whole(ctx, model, 300);
    const auto expected = whole.push(ids);
    for (const std::size_t piece : {1u, 3u, 64u, 299u}) {
      CAPTURE(piece);
      pesc::decoder<sparse<float>> parts(ctx, model, 300);
      pesc::vector_view<const float> logits;
      for (std::size_t begin = 0; begin < ids.size(); begin += piece)
        logits = parts.push(
            std::span<const std::int32_t>(ids).subspan(begin, std::min(piece, ids.size() - begin)));
      CHECK(support::near(logits.data, static_cast<std::size_t>(logits.size), expected.data,
                          static_cast<std::size_t>(expected.size), 1e-5));
    }
    CHECK_THROWS_AS(static_cast<void>(whole.push(ids)), pesc::shape_error);
    CHECK_THROWS_AS(static_cast<void>(whole.push({})), pesc::shape_error);
  }
}
