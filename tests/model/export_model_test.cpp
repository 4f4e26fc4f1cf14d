// SPDX-License-Identifier: Apache-2.0
#include "pesc/model/export_model.hpp"

#include <filesystem>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "support/data.hpp"
#include "support/decoder.hpp"
#include "support/exported.hpp"
#include "support/file_limit.hpp"
#include "support/message_of.hpp"
#include "support/near.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_gguf.hpp"
#include "support/tiny_model.hpp"

namespace {

using pesc::index_t;
using support::tensors_in;
using enum pesc::export_target;

std::vector<std::string> convert(const std::string& from, const std::string& to,
                                 const pesc::export_options& options) {
  return pesc::export_model(to, pesc::load_model({.path = from}), options);
}

/// Whether a folder that is written in its own format holds the same tensors, to the byte.
bool keeps_all(const std::string& from, pesc::export_target target) {
  const support::temporary_folder t;
  convert(from, t.path("out"), {.target = target});
  return tensors_in(t.path("out")) == tensors_in(from);
}

std::string small_folder(const support::temporary_folder& t) {
  const pesc::model_config c{support::tiny_llama(), {}, {}, ""};
  support::write_folder(t.path("m"), c, support::make_tensors(c));
  return t.path("m");
}

}  // namespace

TEST_SUITE("model/export_model") {
  TEST_CASE("folders of other programs are written again with the same tensors") {
    for (const auto& entry : std::filesystem::directory_iterator(support::test_data("golden/llama"))) {
      CAPTURE(entry.path());
      CHECK(keeps_all(entry.path().string(), hf));
    }
    CHECK(keeps_all(support::test_data("golden/bnb_checkpoint/nf4_dq_bf16").string(), hf_4bit));
    for (const auto& entry :
         std::filesystem::directory_iterator(support::test_data("golden/camelidae_model"))) {
      CAPTURE(entry.path());
      CHECK(keeps_all(entry.path().string(), camelidae));
      const support::temporary_folder t;
      convert(entry.path().string(), t.path("s"), {.target = sparsetral});
      CHECK(tensors_in(t.path("s")).contains("model.layers.0.mlp.moe_adapter.experts.1.adapter_up.weight"));
      CHECK(keeps_all(t.path("s"), sparsetral));
    }
  }

  TEST_CASE("a GGUF file becomes the folder that it was made from") {
    const support::temporary_folder t;
    pesc::model_config c{support::tiny_llama(), {}, {}, ""};
    c.llama.attention_bias = c.llama.mlp_bias = true;
    const auto tensors = support::make_tensors(c);
    support::write_folder(t.path("hf"), c, tensors);
    auto keys = support::gguf_keys(c.llama);
    t.write("m.gguf", pesc::as_text(support::add_tensors(keys, c.llama, tensors).bytes()));
    const auto notes = convert(t.path("m.gguf"), t.path("out"), {.target = hf});
    CHECK(tensors_in(t.path("out")) == tensors_in(t.path("hf")));
    CHECK(notes.empty());
    CHECK_FALSE(std::filesystem::exists(t.path("out/tokenizer.json")));
    keys.string("tokenizer.ggml.model", "llama");
    std::vector<std::string> pieces;
    std::vector<float> scores;
    for (int i = 0; i < c.llama.vocab; ++i) {
      pieces.push_back("piece" + std::to_string(i));
      scores.push_back(-static_cast<float>(i));
    }
    keys.list<std::string>("tokenizer.ggml.tokens", 8, pieces)
        .list<float>("tokenizer.ggml.scores", 6, scores);
    keys.u32("tokenizer.ggml.unknown_token_id", 0);
    t.write("words.gguf", pesc::as_text(keys.bytes()));
    convert(t.path("words.gguf"), t.path("words"), {.target = hf});
    CHECK(pesc::load_tokenizer(t.path("words/tokenizer.json")).size() == c.llama.vocab);
  }

  TEST_CASE("a crafted model is written for both families, and read back the same") {
    const support::temporary_folder t;
    const pesc::model_config c{support::tiny_llama(), support::tiny_experts(), {}, ""};
    support::write_folder(t.path("m"), c, support::make_tensors(c));
    auto loaded = pesc::load_model({.path = t.path("m")}, {.format = pesc::nf4<>::info()});
    loaded.lora = pesc::lora_config{2, 4.0};
    support::decoder<support::sparse_layer> crafted(loaded);
    crafted.randomize(3);
    pesc::save_model(t.path("own"), crafted.model,
                     {loaded.config.llama, pesc::json::object(), {}, &loaded.forms});
    const std::vector<std::int32_t> ids{1, 7, 3, 22, 9};
    const auto expected = crafted.logits(ids);
    for (const auto target : {camelidae, sparsetral}) {
      const std::string out = t.path(pesc::name_of(target));
      convert(t.path("own"), out, {.target = target});
      const auto read = pesc::load_model({.path = out});
      CHECK_FALSE(read.lora);
      support::decoder<support::sparse_layer> decoder(read);
      CHECK(support::near(decoder.logits(ids), expected, 1e-5));
    }
    const auto notes = convert(t.path("own"), t.path("peft"), {.target = peft});
    REQUIRE(notes.size() == 1);
    CHECK(support::contains(notes[0],
                            "routers and adapters are no part of the format peft; they are left out"));
  }

  TEST_CASE("weights are split into files of a limited size") {
    const support::temporary_folder t;
    const std::string from = small_folder(t);
    convert(from, t.path("out"), {.target = hf, .max_shard_bytes = 10'000});
    CHECK(std::filesystem::exists(t.path("out/model.safetensors.index.json")));
    CHECK(tensors_in(t.path("out")) == tensors_in(from));
    // The parts of a 4-bit weight lie in one file.
    convert(from, t.path("four"), {.target = hf_4bit, .max_shard_bytes = 10'000});
    const auto folder = pesc::hf_directory::open(t.path("four"));
    CHECK(folder.files().size() > 2);
    for (const auto& file : folder.files())
      for (const auto& name : file.names())
        if (const std::size_t at = name.find(".weight."); at != name.npos)
          CHECK(file.find(name.substr(0, at + 7)) != nullptr);
  }

  TEST_CASE("tokenizer files go along") {
    const support::temporary_folder t;
    const std::string from = small_folder(t);
    for (const char* name :
         {"tokenizer.json", "special_tokens_map.json", "generation_config.json", "tok40.bin", "x"})
      t.write(std::string{"m/"} + name, name);
    convert(from, t.path("out"), {.target = hf});
    for (const char* name :
         {"tokenizer.json", "special_tokens_map.json", "generation_config.json", "tok40.bin"})
      CHECK(pesc::as_text(pesc::read_file(t.path(std::string{"out/"} + name))) == name);
    CHECK_FALSE(std::filesystem::exists(t.path("out/x")));
  }

  TEST_CASE("a refused target leaves no folder, a folder that is not empty is left alone") {
    const support::temporary_folder t;
    const std::string from = small_folder(t);
    CHECK(support::contains(support::message_of([&] { convert(from, t.path("out"), {.target = peft}); }),
                            "the format peft holds low-rank updates, and this model has none"));
    CHECK(t.entries() == 1);
    CHECK(support::contains(support::message_of([&] { convert(from, from, {.target = hf}); }),
                            "this folder is not empty"));
  }

  TEST_CASE("what the published code ignores is told") {
    const support::temporary_folder t;
    pesc::model_config c{support::tiny_llama(), support::tiny_experts(), {}, ""};
    c.llama.rope.theta = 5e6;
    support::write_folder(t.path("m"), c, support::make_tensors(c));
    const auto notes = convert(t.path("m"), t.path("a"), {.target = camelidae});
    REQUIRE(notes.size() == 1);
    CHECK(support::contains(notes[0],
                            "rope_theta is 5e+06, where the published code of Camelidae takes 10000"));
    CHECK(convert(t.path("m"), t.path("b"), {.target = sparsetral}).empty());
  }

  TEST_CASE("a disk that is full in between leaves no folder") {
    const support::temporary_folder t;
    const std::string from = small_folder(t);
    for (const rlim_t limit : {rlim_t{100}, rlim_t{5'000}, rlim_t{40'000}}) {
      CHECK(support::write_with_limit(limit, [&] { convert(from, t.path("out"), {.target = hf}); }) == 0);
      CHECK(t.entries() == 1);
    }
  }
}
