// SPDX-License-Identifier: Apache-2.0
#include "pesc/model/generate.hpp"

#include <doctest/doctest.h>

#include "support/model_bridge.hpp"

namespace {

using pesc::index_t;
using X = pesc::cpu_backend;
using model_type = pesc::llama<pesc::dense_layer<pesc::moe_dynamic<>, X>>;

struct fixture {
  pesc::llama_shape shape{.vocabulary = 20,
                          .hidden = 16,
                          .intermediate = 12,
                          .layers = 1,
                          .heads = 2,
                          .kv_heads = 1,
                          .head_dim = 8};
  pesc::model_weights<pesc::any_format> weights =
      support::random_model(shape, pesc::unquantized<float>::info(), 4, true, false);
  X ctx{1};
  model_type model{weights, {16, 12}, {}, {}};
  std::vector<std::int32_t> prompt{1, 5, 9};

  std::vector<std::int32_t> run(index_t max_tokens, const pesc::sampling_options& options = {},
                                std::vector<std::int32_t> stop = {}, index_t capacity = 64) {
    pesc::decoder<model_type> sequence(ctx, model, capacity);
    std::vector<std::int32_t> out;
    const index_t made = pesc::generate(sequence, prompt, max_tokens, options, stop, [&](std::int32_t id) {
      out.push_back(id);
      return true;
    });
    CHECK(made == static_cast<index_t>(out.size()));
    return out;
  }
};

}  // namespace

TEST_SUITE("model/generate") {
  TEST_CASE("greedy tokens are those of whole passes over prompt and answer") {
    fixture f;
    const auto made = f.run(12);
    REQUIRE(made.size() == 12);
    std::vector<std::int32_t> sequence = f.prompt;
    for (const std::int32_t id : made) {
      pesc::decoder<model_type> fresh(f.ctx, f.model, 64);
      pesc::sampler greedy({});
      CHECK(greedy.draw(fresh.push(sequence), 0) == id);
      sequence.push_back(id);
    }
  }

  TEST_CASE("a resumed sequence gives the logits of a fresh one, whatever it held before") {
    fixture f;
    pesc::decoder<model_type> sequence(f.ctx, f.model, 16);
    const std::vector<std::int32_t> texts[] = {{1, 5, 9}, {1, 5, 9, 2, 7}, {1, 5, 9, 2, 7}, {1, 5, 3, 4},
                                               {2},       {2, 1, 5, 9}};
    for (const auto& text : texts) {
      pesc::decoder<model_type> fresh(f.ctx, f.model, 16);
      const auto expected = fresh.push(text), found = sequence.resume(text);
      REQUIRE(sequence.size() == static_cast<index_t>(text.size()));
      for (index_t i = 0; i < expected.size; ++i)
        REQUIRE(found[i] == doctest::Approx(expected[i]).epsilon(1e-5));
    }
    CHECK_THROWS_AS(sequence.resume({}), pesc::shape_error);
  }

  TEST_CASE("a stop id ends the text and is not emitted") {
    fixture f;
    const auto all = f.run(12, {.temperature = 1.0, .seed = 2});
    const auto stop_at = std::find(all.begin(), all.end(), all[5]) - all.begin();
    const auto stopped = f.run(12, {.temperature = 1.0, .seed = 2}, {all[5]});
    CHECK(stopped == std::vector<std::int32_t>(all.begin(), all.begin() + stop_at));
  }

  TEST_CASE("the callback, the limit and the capacity each end the text") {
    fixture f;
    pesc::decoder<model_type> sequence(f.ctx, f.model, 64);
    int calls = 0;
    CHECK(pesc::generate(sequence, f.prompt, 12, {}, {}, [&](std::int32_t) { return ++calls < 4; }) == 4);
    CHECK(f.run(0).empty());
    CHECK(f.run(7).size() == 7);
    CHECK(f.run(50, {}, {}, 8).size() == 6);  // 3 of 8 places are the prompt; the last token needs no place
  }

  TEST_CASE("a cleared decoder starts anew") {
    fixture f;
    pesc::decoder<model_type> sequence(f.ctx, f.model, 64);
    const auto first = sequence.push(f.prompt);
    const std::vector<float> logits(first.begin(), first.end());
    sequence.clear();
    const auto again = sequence.push(f.prompt);
    CHECK(std::equal(logits.begin(), logits.end(), again.begin()));
  }
}
