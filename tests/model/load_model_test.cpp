// SPDX-License-Identifier: Apache-2.0
#include "pesc/model/load_model.hpp"

#include <algorithm>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "pesc/io/safetensors.hpp"
#include "support/data.hpp"
#include "support/decoder.hpp"
#include "support/message_of.hpp"
#include "support/near.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_adapter.hpp"
#include "support/tiny_model.hpp"

namespace {

using pesc::index_t;

/// The logits of a golden folder's model on its own input, row by row of the batch, only real tokens.
struct golden_logits {
  std::vector<float> found, expected;

  template <class FeedForward>
  golden_logits(support::decoder<FeedForward>& decoder, const pesc::safetensors_file& reference) {
    const auto& ids = reference.get("input_ids");
    const auto all = reference.read<index_t>("input_ids");
    const auto wanted = reference.read_floats("expected.logits");
    std::vector<index_t> mask(all.size(), 1);
    if (reference.find("attention_mask") != nullptr) mask = reference.read<index_t>("attention_mask");
    const auto rows = static_cast<std::size_t>(ids.shape[0]), tokens = static_cast<std::size_t>(ids.shape[1]);
    const std::size_t vocabulary = wanted.size() / all.size();
    for (std::size_t r = 0; r < rows; ++r) {
      std::vector<std::int32_t> row;
      for (std::size_t t = 0; t < tokens && mask[r * tokens + t] != 0; ++t)
        row.push_back(static_cast<std::int32_t>(all[r * tokens + t]));
      const auto logits = decoder.logits(row);
      found.insert(found.end(), logits.begin(), logits.end());
      const auto begin = wanted.begin() + static_cast<std::ptrdiff_t>(r * tokens * vocabulary);
      expected.insert(expected.end(), begin, begin + static_cast<std::ptrdiff_t>(row.size() * vocabulary));
    }
  }
};

template <class FeedForward>
void check_golden(const std::filesystem::path& folder, const std::filesystem::path& reference,
                  const pesc::model_source& source, double tolerance) {
  CAPTURE(folder);
  const auto loaded = pesc::load_model(source);
  CHECK(loaded.warnings.empty());
  support::decoder<FeedForward> decoder(loaded);
  const golden_logits logits(decoder, pesc::safetensors_file::open(reference.string()));
  CHECK(support::near(logits.found, logits.expected, tolerance));
}

}  // namespace

TEST_SUITE("model/load_model") {
  TEST_CASE("stories260K loads and gives the published ids and logits") {
    PESC_REQUIRE_DATA(path, "stories260K.bin");
    const auto loaded = pesc::load_model({.path = path.string()});
    CHECK_FALSE(loaded.sparse());
    CHECK(loaded.tokenizer == (path.parent_path() / "tok512.bin").string());
    support::decoder<support::dense_layer> decoder(loaded);
    const auto first = decoder.logits({1});
    for (const auto& [id, value] :
         {std::pair{403, 17.02352}, {385, 15.40621}, {410, 13.10826}, {317, 12.76917}, {407, 12.41809}})
      CHECK(first[static_cast<std::size_t>(id)] == doctest::Approx(value).epsilon(1e-4));
    const std::vector<std::int32_t> greedy{1,   403, 407, 261, 378, 432, 383, 286, 261, 376, 298,
                                           315, 421, 395, 317, 426, 338, 401, 396, 267, 337, 410,
                                           408, 419, 292, 411, 322, 265, 282, 295, 433, 426, 385,
                                           328, 432, 358, 394, 261, 370, 432, 352};
    // All tokens at once: the largest logit after each is the next one.
    const auto logits = decoder.logits(greedy);
    for (std::size_t t = 0; t + 1 < greedy.size(); ++t) {
      const auto begin = logits.begin() + static_cast<std::ptrdiff_t>(t * 512);
      CHECK(std::max_element(begin, begin + 512) - begin == greedy[t + 1]);
    }
  }

  TEST_CASE("folders of the reference implementation give its logits") {
    for (const auto& entry : std::filesystem::directory_iterator(support::test_data("golden/llama")))
      check_golden<support::dense_layer>(entry.path(), entry.path() / "reference.safetensors",
                                         {.path = entry.path().string()}, 1e-4);
  }

  TEST_CASE("sparse folders of the published code give its logits") {
    // The reference of the bf16 folder rounds every intermediate result, which this decoder does not.
    for (const auto& entry :
         std::filesystem::directory_iterator(support::test_data("golden/camelidae_model")))
      check_golden<support::sparse_layer>(entry.path(), entry.path() / "reference.safetensors",
                                          {.path = entry.path().string()},
                                          entry.path().string().ends_with("bf16") ? 5e-2 : 1e-4);
  }

  TEST_CASE("4-bit folders and unmerged updates of their own libraries give their logits") {
    const auto golden = support::external_golden();
    if (!golden || !std::filesystem::exists(*golden / "lora_model"))
      PESC_SKIP("no golden folders beyond those carried");
    for (const char* name : {"nf4_dq_bf16", "nf4_f32"})
      check_golden<support::dense_layer>(name, *golden / "bnb_checkpoint" / name / "reference.safetensors",
                                         {.path = (*golden / "bnb_checkpoint" / name).string()}, 1e-4);
    for (const char* name : {"all_linear", "qv_rslora"}) {
      const auto folder = *golden / "lora_model" / name;
      check_golden<support::dense_layer>(
          name, folder / "reference.safetensors",
          {.path = (folder / "base").string(), .adapter = (folder / "adapter").string()}, 1e-4);
    }
  }

  TEST_CASE("mapping the files gives the same model as reading them") {
    const auto folder = support::test_data("golden/llama/gqa_llama3_sharded").string();
    const auto a = pesc::load_model({.path = folder});
    const auto b = pesc::load_model({.path = folder, .map = true});
    CHECK(support::values_of(a.weights.embedding) == support::values_of(b.weights.embedding));
    CHECK(support::values_of(a.weights.layers[1].v.weight) ==
          support::values_of(b.weights.layers[1].v.weight));
  }

  TEST_CASE("the names of either family of sparse models lead to the same model") {
    const support::temporary_folder t;
    const pesc::model_config config{support::tiny_llama(), support::tiny_experts(), {}, ""};
    const auto tensors = support::make_tensors(config);
    support::tiny_tensors renamed;
    for (const auto& [name, tensor] : tensors) renamed[pesc::without_expert_word(name)] = tensor;
    CHECK(renamed.contains("model.layers.0.mlp.moe_adapter.experts.2.adapter_up.weight"));
    support::write_folder<pesc::bf16>(t.path("a"), config, tensors);
    support::write_folder<pesc::bf16>(t.path("b"), config, renamed);
    const auto a = pesc::load_model({.path = t.path("a")});
    const auto b = pesc::load_model({.path = t.path("b")});
    CHECK(a.ffn_shape().experts == 3);
    CHECK(a.ffn_shape().top_k == 2);
    CHECK(a.ffn_shape().rank == 5);
    CHECK(a.ffn_options().expert_scale == 0.5f);
    support::decoder<support::sparse_layer> first(a), second(b);
    CHECK(first.values() == second.values());
    CHECK(first.model.parameters()[1].ffn.experts.up[2](3, 4) ==
          pesc::to_float(pesc::to_bf16(
              tensors.at("model.layers.1.mlp.moe_adapter.experts.expert_2.adapter_up.weight").values[19])));
  }

  TEST_CASE("an expert of another rank than the configuration says is named") {
    const support::temporary_folder t;
    pesc::model_config config{support::tiny_llama(), support::tiny_experts(), {}, ""};
    const auto tensors = support::make_tensors(config);
    config.pesc->adapter_dim = 6;
    support::write_folder(t.path("a"), config, tensors);
    CHECK(support::contains(
        support::message_of([&] { static_cast<void>(pesc::load_model({.path = t.path("a")})); }),
        "expert_0.adapter_down.weight\" is [5, 24], expected [6, 24] by config.json"));
  }

  TEST_CASE("updates are merged into numbers, and refused where 4-bit weights are kept") {
    const support::temporary_folder t;
    const auto c = support::tiny_llama();
    const auto tensors = support::make_tensors({c, {}, {}, ""});
    support::write_folder<pesc::bf16>(t.path("a"), {c, {}, {}, ""}, tensors);
    support::write_adapter(t.path("u"), c, {{"model.layers.1.mlp.up_proj", 2}});
    const auto plain = pesc::load_model({.path = t.path("a")});
    const auto merged = pesc::load_model({.path = t.path("a"), .adapter = t.path("u"), .merge = true});
    CHECK(merged.trainables.empty());
    CHECK_FALSE(merged.lora);
    CHECK(merged.weights.format == pesc::unquantized<pesc::bf16>::info());
    const auto live = pesc::load_model({.path = t.path("a"), .adapter = t.path("u")});
    auto expected = support::values_of(plain.weights.layers[1].up.weight);
    pesc::add_update(live.trainables, *live.lora, "model.layers.1.mlp.up_proj",
                     {expected.data(), c.intermediate, c.hidden}, "");
    for (float& x : expected) x = pesc::to_float(pesc::to_bf16(x));
    CHECK(support::values_of(merged.weights.layers[1].up.weight) == expected);
    CHECK(support::values_of(merged.weights.layers[0].up.weight) ==
          support::values_of(plain.weights.layers[0].up.weight));
    CHECK(support::contains(support::message_of([&] {
                              static_cast<void>(pesc::load_model({.path = t.path("a"), .merge = true}));
                            }),
                            "there are no low-rank updates to merge"));
  }

  TEST_CASE("updates are merged into 4-bit weights that are decoded, or quantised again on request") {
    const auto folder = support::test_data("golden/bnb_checkpoint/nf4_dq_bf16").string();
    const support::temporary_folder t;
    const auto plain = pesc::load_model({.path = folder});
    support::write_adapter(t.path("u"), plain.config.llama, {{"model.layers.1.mlp.up_proj", 2}});
    const pesc::model_source source{.path = folder, .adapter = t.path("u"), .merge = true};
    CHECK(support::contains(support::message_of([&] { static_cast<void>(pesc::load_model(source)); }),
                            "an update cannot be merged into \"model.layers.1.mlp.up_proj.weight\", which is "
                            "kept as nf4. Ask for "
                            "numbers, or for quantising it again, which loses precision."));
    const auto again = pesc::load_model(source, {.requantize = true});
    CHECK(again.weights.layers[1].up.weight.format() == plain.weights.format);
    CHECK(support::values_of(again.weights.layers[1].up.weight) !=
          support::values_of(plain.weights.layers[1].up.weight));
    const auto numbers = pesc::load_model(source, {.format = pesc::unquantized<float>::info()});
    CHECK(support::values_of(numbers.weights.layers[0].up.weight) ==
          support::values_of(plain.weights.layers[0].up.weight));
    CHECK(support::near(support::values_of(again.weights.layers[1].up.weight),
                        support::values_of(numbers.weights.layers[1].up.weight), 0.2));
  }

  TEST_CASE("an adapter in the order of Hugging Face files fits a model of rotary neighbours") {
    const support::temporary_folder t;
    auto c = support::tiny_llama();
    auto tensors = support::make_tensors({c, {}, {}, ""});
    c.rope.pairing = pesc::rope_pairing::halves;
    support::write_folder(t.path("a"), {c, {}, {}, ""}, tensors);
    const pesc::row_order order(c.head_dim, pesc::rope_pairing::halves, pesc::rope_pairing::neighbours);
    for (auto& [name, tensor] : tensors) {
      if (!pesc::has_head_rows(name)) continue;
      const auto old = tensor.values;
      for (index_t i = 0; i < static_cast<index_t>(old.size()); ++i)
        tensor.values[static_cast<std::size_t>(i)] =
            old[static_cast<std::size_t>(order.source(i / c.hidden) * c.hidden + i % c.hidden)];
    }
    pesc::write_file(t.path("m.bin"), support::llama2c_bytes(c, tensors));
    support::write_adapter(t.path("u"), c,
                           {{"model.layers.0.self_attn.q_proj", 4},
                            {"model.layers.1.self_attn.k_proj", 2},
                            {"model.layers.1.mlp.up_proj", 4}});
    const std::vector<std::int32_t> ids{1, 7, 3, 22, 9, 30, 5};
    const auto expected = pesc::load_model({.path = t.path("a"), .adapter = t.path("u")});
    support::decoder<support::dense_layer> first(expected);
    for (const bool merge : {false, true}) {
      const auto loaded = pesc::load_model({.path = t.path("m.bin"), .adapter = t.path("u"), .merge = merge});
      support::decoder<support::dense_layer> second(loaded);
      CHECK(support::near(first.logits(ids), second.logits(ids), 1e-5));
    }
  }

  TEST_CASE("updates that find no place in a decoder are an error, not silence") {
    const auto golden = support::external_golden("lora_model");
    if (!golden) PESC_SKIP("no golden folder lora_model");
    const auto loaded = pesc::load_model({.path = (*golden / "all_linear/base").string(),
                                          .adapter = (*golden / "all_linear/adapter").string()});
    auto shape = loaded.ffn_shape();
    shape.lora_rank = 0;
    support::decoder<support::dense_layer> decoder(loaded.weights, shape, {});
    const auto text =
        support::message_of([&] { static_cast<void>(pesc::load_trainables(decoder.model, loaded)); });
    CHECK(support::contains(text, "the model took 0 of "));
  }
}
