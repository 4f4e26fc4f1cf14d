// SPDX-License-Identifier: Apache-2.0
// Training steps and generated tokens of a whole model: no allocation, and the same bits for any number of threads.

#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "pesc/model/generate.hpp"
#include "pesc/train/trainer.hpp"
#include "support/count_allocations.hpp"
#include "support/host_isas.hpp"
#include "support/layer_run.hpp"
#include "support/model_bridge.hpp"

namespace {

using pesc::index_t;
using backend = pesc::cpu_backend;
using model_type = pesc::llama<pesc::moe_layer<pesc::moe_dynamic<>, backend>>;

constexpr pesc::llama_shape shape{.vocabulary = 23,
                                  .hidden = 24,
                                  .intermediate = 20,
                                  .layers = 2,
                                  .heads = 4,
                                  .kv_heads = 2,
                                  .head_dim = 6};
constexpr pesc::moe_shape experts{24, 20, 4, 2, 4, 4};

constexpr pesc::moe_options options(bool recompute) {
  return {.adapter_dropout = 0.1f, .lora_alpha = 8.0f, .lora_dropout = 0.1f, .recompute_ffn = recompute};
}

pesc::token_records records() {
  pesc::token_records out;
  std::vector<std::int32_t> ids;
  support::generator g(5);
  for (int i = 0; i < 40; ++i) {
    ids.assign(1, static_cast<std::int32_t>(g.below(23)));
    for (int t = 1; t < 30; ++t) ids.push_back((ids.back() * 5 + 3) % 23);
    out.add(ids, 1 + g.below(8));
  }
  return out;
}

/// Two micro-batches a step, of several sequences each.
struct run {
  pesc::model_weights<pesc::any_format> weights =
      support::random_model(shape, pesc::nf4<>::info(), 3, true, false);
  pesc::buffer<float> arena{model_type::parameter_count(shape, experts)};
  backend ctx;
  model_type model;
  pesc::token_records data = records();
  pesc::batch_options batching;
  pesc::batch_builder builder;
  pesc::trainer<model_type> trainer;
  std::vector<pesc::token_batch> batches;

  run(pesc::cpu::isa level, int threads, pesc::batch_layout layout, bool recompute)
      : ctx(threads, pesc::cpu::runtime_isa{level}),
        model(weights, experts, options(recompute), arena.view()),
        batching{.layout = layout, .sequences = 6, .length = 24},
        builder({&data}, pesc::mixture({{data.size(), 1.0}}, 8), batching),
        trainer(ctx, model, arena.view(),
                {.balance = {.coefficient = 0.01f, .z_coefficient = 0.001f}, .accumulation = 2, .seed = 7},
                6 * 24) {
    model.initialize(1);
    for (int i = 0; i < 2; ++i) batches.emplace_back(batching);
  }

  void fill() {
    for (pesc::token_batch& batch : batches) builder.fill(batch);
  }
  [[nodiscard]] std::vector<float> parameters() const { return {arena.data(), arena.data() + arena.size()}; }
};

}  // namespace

TEST_SUITE("train/trainer_memory") {
  TEST_CASE(
      "a training step does not allocate, on any instruction set, with and without computing the network "
      "again") {
    for (const auto level : support::host_isas())
      for (const auto layout : {pesc::batch_layout::pad, pesc::batch_layout::pack})
        for (const bool recompute : {false, true}) {
          CAPTURE(std::string(pesc::cpu::name_of(level)));
          CAPTURE(recompute);
          run r(level, 3, layout, recompute);
          for (int step = 0; step < 3; ++step) {
            r.fill();
            CHECK(support::allocations_of([&] { static_cast<void>(r.trainer.step(r.batches, 1e-3)); }) == 0);
          }
        }
  }

  TEST_CASE("training steps give the same bits for 1, 2, 3 and 8 threads") {
    for (const auto level : support::host_isas()) {
      CAPTURE(std::string(pesc::cpu::name_of(level)));
      std::vector<float> expected;
      double loss = 0;
      for (const int threads : {1, 2, 3, 8}) {
        CAPTURE(threads);
        run r(level, threads, pesc::batch_layout::pack, false);
        double last = 0;
        for (int step = 0; step < 4; ++step) {
          r.fill();
          last = r.trainer.step(r.batches, 1e-2).loss;
        }
        if (threads == 1) {
          expected = r.parameters();
          loss = last;
        }
        CHECK(support::same_bits(r.parameters(), expected));
        CHECK(last == loss);
      }
    }
  }

  TEST_CASE(
      "a decoder does not allocate for a prompt or a token, and its logits do not depend on the threads") {
    for (const auto level : support::host_isas()) {
      CAPTURE(std::string(pesc::cpu::name_of(level)));
      std::vector<float> expected;
      for (const int threads : {1, 3}) {
        run r(level, threads, pesc::batch_layout::pad, false);
        support::randomize(r.model.parameters()[0].ffn, 4);
        pesc::decoder<model_type> decoder(r.ctx, r.model, 200);
        std::vector<std::int32_t> prompt;
        for (std::int32_t i = 0; i < 150; ++i) prompt.push_back(i * 7 % 23);
        std::vector<float> logits;
        CHECK(support::allocations_of([&] { decoder.push(prompt); }) == 0);
        for (std::int32_t token = 0; token < 20; ++token) {
          pesc::vector_view<const float> last;
          CHECK(support::allocations_of([&] { last = decoder.push(std::span(&token, 1)); }) == 0);
          logits.insert(logits.end(), last.begin(), last.end());
        }
        if (threads == 1) expected = logits;
        CHECK(support::same_bits(logits, expected));
      }
    }
  }
}
