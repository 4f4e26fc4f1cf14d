// SPDX-License-Identifier: Apache-2.0
#include "pesc/train/trainer.hpp"

#include <limits>

#include <doctest/doctest.h>

#include "pesc/train/evaluate.hpp"
#include "support/model_bridge.hpp"

namespace {

using pesc::index_t;
using X = pesc::cpu_backend;
using model_type = pesc::llama<pesc::moe_layer<pesc::moe_dynamic<>, X>>;

constexpr pesc::llama_shape shape{.vocabulary = 23,
                                  .hidden = 24,
                                  .intermediate = 20,
                                  .layers = 2,
                                  .heads = 4,
                                  .kv_heads = 2,
                                  .head_dim = 6};
constexpr pesc::moe_shape experts{24, 20, 4, 2, 4, 4};

/// \brief Records of a language in which every token follows from the one before it.
pesc::token_records records(index_t count, index_t length, std::uint64_t seed) {
  support::generator g(seed);
  pesc::token_records out;
  std::vector<std::int32_t> ids;
  for (index_t i = 0; i < count; ++i) {
    ids.assign(1, static_cast<std::int32_t>(g.below(23)));
    for (index_t t = 1; t < length; ++t) ids.push_back((ids.back() * 5 + 3) % 23);
    out.add(ids, 1 + g.below(length / 2));
  }
  return out;
}

/// \brief A model, its arena, and a trainer over micro-batches of `rows` sequences.
struct run {
  pesc::model_weights<pesc::any_format> weights =
      support::random_model(shape, pesc::nf4<>::info(), 3, true, false);
  pesc::buffer<float> arena{model_type::parameter_count(shape, experts)};
  X ctx;
  model_type model;
  pesc::token_records data = records(40, 17, 5);
  pesc::batch_options batching;
  pesc::batch_builder builder;
  pesc::trainer<model_type> trainer;
  std::vector<pesc::token_batch> batches;

  run(index_t rows, index_t accumulation, const pesc::moe_options& options = {.lora_alpha = 8.0f},
      int threads = 2, pesc::batch_layout layout = pesc::batch_layout::pad)
      : ctx(threads),
        model(weights, experts, options, arena.view()),
        batching{.layout = layout, .sequences = rows, .length = 16},
        builder({&data}, pesc::mixture({{data.size(), 1.0}}, 8), batching),
        trainer(ctx, model, arena.view(),
                {.balance = {.coefficient = accumulation > 0 ? 0.01f : 0.0f, .z_coefficient = 0.001f},
                 .accumulation = accumulation,
                 .seed = 77},
                rows * 16) {
    model.initialize(1);
    for (index_t i = 0; i < accumulation; ++i) batches.emplace_back(batching);
  }

  pesc::step_result step(double rate = 5e-3) {
    for (pesc::token_batch& batch : batches) builder.fill(batch);
    return trainer.step(batches, rate);
  }
};

std::vector<float> copy_of(pesc::vector_view<const float> v) { return {v.begin(), v.end()}; }

}  // namespace

TEST_SUITE("train/trainer") {
  TEST_CASE("a small model learns, and the evaluation sees it") {
    run r(8, 1, {.adapter_dropout = 0.1f, .lora_alpha = 8.0f, .lora_dropout = 0.05f});
    const auto held_out = records(10, 17, 99);
    pesc::evaluator<model_type> measure(r.ctx, r.model, 64);
    const auto before = measure(held_out);
    double last = 0;
    for (int i = 0; i < 150; ++i) last = r.step(1e-2).loss;
    const auto after = measure(held_out);
    CHECK(before.loss > 2.5);
    CHECK(after.loss < 0.6 * before.loss);
    CHECK(last < 0.7 * before.loss);
    CHECK(after.records == 10);
    index_t targets = 0;
    for (index_t i = 0; i < held_out.size(); ++i) targets += held_out[i].targets();
    CHECK(after.tokens == targets);
    index_t slots = 0;
    for (const index_t n : after.load) slots += n;
    CHECK(slots == 2 * 2 * 10 * 16);
    CHECK(r.trainer.counters().step == 150);
  }

  TEST_CASE("the split of a batch into micro-batches changes neither loss nor gradient") {
    std::vector<float> expected;
    double loss = 0;
    for (const index_t accumulation : {1, 2, 4, 8}) {
      CAPTURE(accumulation);
      // Without the balance loss, which is defined per micro-batch.
      run r(8 / accumulation, accumulation);
      pesc::trainer<model_type> plain(
          r.ctx, r.model, r.arena.view(),
          {.max_grad_norm = 0.0, .balance = {.kind = pesc::balance_kind::none}, .accumulation = accumulation},
          8 / accumulation * 16);
      support::randomize(r.model.parameters()[0].ffn, 4);
      for (pesc::token_batch& batch : r.batches) r.builder.fill(batch);
      const auto result = plain.step(r.batches, 1e-3);
      const auto gradient = copy_of(plain.gradient());
      if (expected.empty()) {
        expected = gradient;
        loss = result.loss;
      }
      CHECK(support::near(gradient, expected, 1e-5));
      CHECK(result.loss == doctest::Approx(loss).epsilon(1e-6));
    }
  }

  TEST_CASE("a run that is stopped and goes on from its saved state ends in the same bits") {
    const pesc::moe_options dropout{.adapter_dropout = 0.2f, .lora_alpha = 8.0f, .lora_dropout = 0.1f};
    run straight(4, 2, dropout, 1);
    run first(4, 2, dropout, 2);
    for (int i = 0; i < 9; ++i) straight.step();
    for (int i = 0; i < 4; ++i) first.step();
    run second(4, 2, dropout, 3);
    std::copy(first.arena.view().begin(), first.arena.view().end(), second.arena.data());
    std::copy(first.trainer.first_moment().begin(), first.trainer.first_moment().end(),
              second.trainer.first_moment().begin());
    std::copy(first.trainer.second_moment().begin(), first.trainer.second_moment().end(),
              second.trainer.second_moment().begin());
    second.trainer.restore(first.trainer.counters());
    second.builder.restore(first.builder.state());
    for (int i = 0; i < 5; ++i) second.step();
    CHECK(copy_of(second.arena.view()) == copy_of(straight.arena.view()));
  }

  TEST_CASE("rows of padding change nothing") {
    // Rows of 16 places hold records of 17 tokens exactly; in rows of 24, eight places of each are padding.
    run exact(4, 1);
    run padded(4, 1);
    pesc::batch_options wide{
        .layout = pesc::batch_layout::pad, .sequences = 4, .length = 24, .padding_id = 7};
    pesc::batch_builder builder({&padded.data}, pesc::mixture({{padded.data.size(), 1.0}}, 8), wide);
    pesc::trainer<model_type> trainer(padded.ctx, padded.model, padded.arena.view(),
                                      {.balance = {.z_coefficient = 0.001f}, .seed = 77}, 4 * 24);
    std::vector<pesc::token_batch> batches;
    batches.emplace_back(wide);
    builder.fill(batches[0]);
    const auto a = exact.step();
    const auto b = trainer.step(batches, 5e-3);
    CHECK(a.loss == doctest::Approx(b.loss).epsilon(1e-6));
    CHECK(a.balance == doctest::Approx(b.balance).epsilon(1e-6));
    CHECK(a.z == doctest::Approx(b.z).epsilon(1e-6));
    CHECK(a.tokens == b.tokens);
    CHECK(support::near(copy_of(exact.trainer.gradient()), copy_of(trainer.gradient()), 1e-5));
  }

  TEST_CASE("steps with numbers that are not finite change nothing, and end the run after five in a row") {
    run r(2, 1);
    r.step();
    r.arena[3] = std::numeric_limits<float>::quiet_NaN();
    const auto before = copy_of(r.trainer.first_moment());
    for (int i = 0; i < 4; ++i) {
      CHECK(r.step().skipped);
      CHECK(r.trainer.counters().updates == 1);
    }
    CHECK(copy_of(r.trainer.first_moment()) == before);
    CHECK_THROWS_WITH_AS(r.step(), doctest::Contains("is not finite, 5 steps in a row"), pesc::numeric_error);
    r.arena[3] = 0.0f;
    CHECK_FALSE(r.step().skipped);
    CHECK(r.trainer.counters().bad_steps == 0);
  }

  TEST_CASE("the estimate names what a trainer allocates") {
    run r(4, 1);
    const auto e = pesc::trainer<model_type>::estimate(r.ctx, r.model, 64);
    CHECK(e.weights == r.weights.bytes());
    CHECK(e.parameters == 4 * r.arena.size());
    CHECK(e.gradients + e.optimizer == 3 * e.parameters);
    CHECK(e.activations > 0);
    CHECK(e.total() > e.activations + e.scratch);
    const auto more = pesc::trainer<model_type>::estimate(r.ctx, r.model, 128);
    CHECK(more.activations > 1.9 * static_cast<double>(e.activations));
  }
}
