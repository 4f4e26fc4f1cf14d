// SPDX-License-Identifier: Apache-2.0
#include "pesc/model/gguf_model.hpp"

#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "support/decoder.hpp"
#include "support/message_of.hpp"
#include "support/near.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_gguf.hpp"

namespace {

using support::contains;
using support::gguf_builder;

pesc::model_config config(const gguf_builder& from) {
  return pesc::config_of(pesc::gguf_file::from_bytes("m.gguf", from.bytes()));
}

std::string refusal(const gguf_builder& from) {
  return support::message_of([&] { static_cast<void>(config(from)); });
}

gguf_builder keys() { return support::gguf_keys(support::tiny_llama()); }

}  // namespace

TEST_SUITE("model/gguf_model") {
  TEST_CASE("a model computes the same from a GGUF file as from a folder") {
    const support::temporary_folder folder;
    for (const bool tied : {false, true})
      for (const bool biases : {false, true}) {
        pesc::model_config c;
        c.llama = support::tiny_llama();
        c.llama.tie_embeddings = tied;
        c.llama.attention_bias = c.llama.mlp_bias = biases;
        c.llama.rope.theta = 1000;
        const auto tensors = support::make_tensors(c);
        support::write_folder(folder.path("hf"), c, tensors);
        gguf_builder b = support::gguf_keys(c.llama);
        const std::string path =
            folder.write("m.gguf", pesc::as_text(support::add_tensors(b, c.llama, tensors).bytes()));
        const std::vector<std::int32_t> ids{1, 5, 9, 2, 30, 7, 7};
        const auto from_folder = pesc::load_model({.path = folder.path("hf")});
        support::decoder<support::dense_layer> expected(from_folder);
        for (const bool map : {false, true}) {
          const auto loaded = pesc::load_model({.path = path, .map = map});
          CHECK(loaded.config.llama.rope.pairing == pesc::rope_pairing::neighbours);
          CHECK(loaded.config.llama.tie_embeddings == tied);
          CHECK(loaded.tokenizer.empty());
          support::decoder<support::dense_layer> actual(loaded);
          CHECK(support::near(actual.logits(ids), expected.logits(ids), 1e-5));
        }
      }
  }

  TEST_CASE("keys become a configuration, with the defaults of the format") {
    const pesc::llama_config c = config(keys()).llama;
    const pesc::llama_config expected = support::tiny_llama();
    CHECK(c.vocab == expected.vocab);
    CHECK(c.hidden == expected.hidden);
    CHECK(c.intermediate == expected.intermediate);
    CHECK(c.layers == expected.layers);
    CHECK(c.heads == expected.heads);
    CHECK(c.kv_heads == expected.kv_heads);
    CHECK(c.head_dim == expected.head_dim);
    CHECK(c.max_positions == expected.max_positions);
    CHECK(c.rope.theta == 10000.0);
    CHECK(c.tie_embeddings);
    CHECK(c.bos == -1);
    CHECK(c.eos.empty());
    const auto more = config(keys()
                                 .u32("tokenizer.ggml.bos_token_id", 3)
                                 .u32("tokenizer.ggml.eos_token_id", 4)
                                 .u32("tokenizer.ggml.eot_token_id", 5)
                                 .u32("llama.attention.key_length", 8)
                                 .u32("llama.attention.value_length", 8)
                                 .string("llama.rope.scaling.type", "linear")
                                 .f32("llama.rope.scaling.factor", 2.0f))
                          .llama;
    CHECK(more.bos == 3);
    CHECK(more.eos == std::vector<std::int32_t>{4, 5});
    CHECK(more.head_dim == 8);
    CHECK(more.rope.scaling == pesc::rope_scaling::linear);
    CHECK(more.rope.factor == 2.0);
  }

  TEST_CASE("stretched frequencies are recovered from their divisors") {
    pesc::llama_config c = support::tiny_llama();
    c.head_dim = 64;
    c.rope.theta = 500000;
    pesc::rope_options stretched = c.rope;
    stretched.scaling = pesc::rope_scaling::llama3;
    stretched.factor = 32;
    std::vector<float> plain(32), other(32), divisors(32);
    pesc::rope_frequencies(c.rope, 64, {plain.data(), 32});
    pesc::rope_frequencies(stretched, 64, {other.data(), 32});
    for (std::size_t i = 0; i < 32; ++i) divisors[i] = plain[i] / other[i];
    const auto with = [&](const std::vector<float>& values) {
      gguf_builder b = support::gguf_keys(c);
      b.u32("llama.attention.key_length", 64).u32("llama.attention.value_length", 64);
      b.floats("rope_freqs.weight", {values.size()}, values);
      return b;
    };
    const auto found = config(with(divisors)).llama.rope;
    CHECK(found.scaling == pesc::rope_scaling::llama3);
    CHECK(found.factor == doctest::Approx(32));
    divisors[20] *= 1.1f;
    CHECK(contains(refusal(with(divisors)), "tensor \"rope_freqs.weight\" is "));
    CHECK(contains(refusal(with(std::vector<float>(16, 1.0f))), "has 16 entries, expected 32"));
  }

  TEST_CASE("what the host does not compute is refused by name") {
    gguf_builder b;
    b.string("general.architecture", "qwen2");
    CHECK(refusal(b) ==
          "m.gguf: key \"general.architecture\": \"qwen2\" is not supported; results would be wrong. "
          "Supported: llama.");
    CHECK(contains(refusal(keys().string("llama.rope.scaling.type", "yarn")), "\"yarn\" is not supported"));
    CHECK(contains(refusal(keys().u32("llama.expert_count", 8)), "8 feed-forward networks"));
    CHECK(contains(refusal(keys().u32("llama.rope.dimension_count", 4)), "4 of 6 elements of a head"));
    CHECK(contains(refusal(keys().u32("llama.attention.sliding_window", 16)), "a window of 16"));
    CHECK(contains(refusal(keys().u32("tokenizer.ggml.bos_token_id", 40)), "expected an id from 0 to 39"));
    CHECK(contains(refusal(keys().u32("llama.attention.value_length", 8)), "keys and values of one size"));
    CHECK(contains(refusal(gguf_builder{}.string("general.architecture", "llama")),
                   "key \"llama.embedding_length\" is missing"));
  }

  TEST_CASE("tensors of types that are not read, and missing ones, are named") {
    const support::temporary_folder folder;
    const auto load = [&](const gguf_builder& b) {
      const std::string path = folder.write("x.gguf", pesc::as_text(b.bytes()));
      return support::message_of([&] { static_cast<void>(pesc::load_model({.path = path})); });
    };
    CHECK(contains(load(keys().tensor("token_embd.weight", {256}, 12, std::vector<std::byte>(144))),
                   "tensor \"token_embd.weight\" is Q4_K, which is not read. Supported: F32, F16, BF16, "
                   "Q8_0, Q4_0, Q4_1."));
    CHECK(contains(load(keys()), "missing 20 of 20 tensors"));
  }
}
