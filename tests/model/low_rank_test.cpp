// SPDX-License-Identifier: Apache-2.0
#include "pesc/model/low_rank.hpp"

#include <cmath>
#include <map>
#include <span>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "pesc/io/safetensors_writer.hpp"
#include "support/data.hpp"
#include "support/message_of.hpp"
#include "support/near.hpp"
#include "support/random.hpp"
#include "support/tiny_adapter.hpp"
#include "support/tiny_model.hpp"

namespace {

using pesc::index_t;

/// The error of reading a PEFT file with these tensors, and what was taken.
std::string read(const std::map<std::string, std::vector<pesc::index_t>>& tensors, pesc::tensor_set& out) {
  const std::vector<float> zeros(1000);
  pesc::safetensors_writer writer;
  for (const auto& [name, shape] : tensors)
    writer.add(name, shape, std::span{zeros}.first(static_cast<std::size_t>(shape[0] * shape[1])));
  const auto file = pesc::safetensors_file::from_bytes("a", writer.to_bytes());
  return support::message_of([&] {
    static_cast<void>(pesc::read_adapter(file, {4, 8, 0, {}}, support::tiny_llama(), out));
  });
}

/// A PEFT file with updates of these modules, random.
pesc::safetensors_file make_adapter(const std::map<std::string, index_t>& ranks,
                                    const pesc::llama_config& c) {
  return pesc::safetensors_file::from_bytes("adapter", support::adapter_bytes(c, ranks));
}

pesc::adapter_config parse(const std::string& patterns) {
  return pesc::parse_adapter_config(
      pesc::parse_json("{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 8" + patterns + "}", "a"), "a");
}

/// W + scale * B A by the definition, in double.
std::vector<float> expected_sum(const pesc::tensor_set& set, const std::string& module, double scale,
                                const std::vector<float>& weight, index_t cols) {
  const auto& a_info = *set.find(module + ".lora_A.weight");
  const auto a = pesc::to_floats(a_info, "");
  const auto b = pesc::to_floats(*set.find(module + ".lora_B.weight"), "");
  const auto rank = static_cast<std::size_t>(a_info.shape[0]), width = static_cast<std::size_t>(cols);
  std::vector<float> out(weight);
  for (std::size_t i = 0; i < out.size(); ++i) {
    double sum = 0;
    for (std::size_t j = 0; j < rank; ++j)
      sum += static_cast<double>(b[i / width * rank + j]) * static_cast<double>(a[j * width + i % width]);
    out[i] = static_cast<float>(static_cast<double>(weight[i]) + scale * sum);
  }
  return out;
}

}  // namespace

TEST_SUITE("model/low_rank") {
  TEST_CASE("files of PEFT itself are read") {
    const auto folder = support::external_golden("lora_model");
    if (!folder) PESC_SKIP("no golden folder lora_model");
    for (const char* name : {"all_linear", "qv_rslora"}) {
      const std::string path = (*folder / name / "adapter").string();
      const auto lora = pesc::parse_adapter_config(pesc::read_json(path + "/adapter_config.json"), path);
      const auto config =
          pesc::parse_config(pesc::read_json((*folder / name / "base/config.json").string()), path);
      pesc::tensor_set out;
      const auto common = pesc::read_adapter(
          pesc::safetensors_file::open(path + "/adapter_model.safetensors"), lora, config.llama, out);
      CHECK(common.rank == lora.rank);
      CHECK(common.modules.empty());
      CHECK(out.size() == 2 * config.llama.layers * static_cast<pesc::index_t>(lora.target_modules.size()));
    }
  }

  TEST_CASE("pairs are taken under names without the prefix, also of training checkpoints") {
    pesc::tensor_set out;
    CHECK(read({{"base_model.model.model.layers.1.self_attn.k_proj.lora_A.weight", {4, 24}},
                {"base_model.model.model.layers.1.self_attn.k_proj.lora_B.weight", {12, 4}},
                {"base_model.model.model.layers.0.mlp.down_proj.lora_A.default.weight", {4, 36}},
                {"base_model.model.model.layers.0.mlp.down_proj.lora_B.default.weight", {24, 4}}},
               out) == "no error");
    CHECK(out.size() == 4);
    CHECK(out.find("model.layers.1.self_attn.k_proj.lora_B.weight") != nullptr);
    CHECK(out.find("model.layers.0.mlp.down_proj.lora_A.weight") != nullptr);
  }

  TEST_CASE("modules that the model lacks, half pairs and other sizes are named") {
    using support::contains;
    pesc::tensor_set out;
    CHECK(contains(read({{"base_model.model.h.0.attn.lora_A.weight", {4, 24}},
                         {"base_model.model.h.0.attn.lora_B.weight", {24, 4}}},
                        out),
                   "adapter matched 0 of 1 modules, not \"base_model.model.h.0.attn.lora_A.weight\""));
    CHECK(contains(read({{"base_model.model.model.layers.2.mlp.up_proj.lora_A.weight", {4, 24}}}, out),
                   "matched 0 of 1"));
    CHECK(contains(read({}, out), "adapter matched 0 of 0 modules"));
    CHECK(contains(read({{"base_model.model.model.layers.0.mlp.up_proj.lora_A.weight", {4, 24}}}, out),
                   "module \"model.layers.0.mlp.up_proj\" has only one of lora_A and lora_B"));
    CHECK(contains(read({{"base_model.model.model.layers.0.mlp.up_proj.lora_A.weight", {8, 24}}}, out),
                   "is [8, 24], expected [4, 24] for r = 4"));
    CHECK(contains(read({{"base_model.model.model.embed_tokens.weight", {4, 24}}}, out), "matched 0 of 1"));
  }

  TEST_CASE("ranks and scales of single modules are kept, the model gets the largest rank") {
    const auto c = support::tiny_llama();
    const std::string q = "model.layers.0.self_attn.q_proj", k = "model.layers.1.self_attn.k_proj",
                      up = "model.layers.1.mlp.up_proj";
    const auto file = make_adapter({{q, 4}, {k, 2}, {up, 4}}, c);
    pesc::tensor_set set;
    const auto lora = pesc::read_adapter(file, parse(", \"rank_pattern\": {\"k_proj\": 2}"), c, set);
    CHECK(lora.rank == 4);
    CHECK(lora.alpha == 8.0);
    CHECK(lora.modules.size() == 1);
    CHECK(lora.of(k) == pesc::lora_module{2, 8.0});
    CHECK(lora.of(q) == pesc::lora_module{4, 8.0});
    CHECK(set.find(k + ".lora_A.weight")->shape == std::vector<index_t>{2, c.hidden});
  }

  TEST_CASE("padded with zeros and with the scale folded in an update is the same to the bit") {
    const auto c = support::tiny_llama();
    const std::string q = "model.layers.0.self_attn.q_proj", k = "model.layers.1.self_attn.k_proj";
    const std::string up = "model.layers.0.mlp.up_proj";
    const auto file = make_adapter({{q, 4}, {k, 1}, {up, 4}}, c);
    pesc::tensor_set set;
    // The scale of k_proj is 8, that of the others 2.
    const auto lora = pesc::read_adapter(file, parse(", \"rank_pattern\": {\"k_proj\": 1}"), c, set);
    const index_t rows = c.kv_heads * c.head_dim;
    std::vector<float> a(static_cast<std::size_t>(4 * c.hidden), 7.0f),
        b(static_cast<std::size_t>(rows * 4), 7.0f);
    pesc::fill_low_rank(*set.find(k + ".lora_A.weight"), k + ".lora_A.weight", lora, {a.data(), 4, c.hidden},
                        "f");
    pesc::fill_low_rank(*set.find(k + ".lora_B.weight"), k + ".lora_B.weight", lora, {b.data(), rows, 4},
                        "f");
    const auto stored_a = pesc::to_floats(*set.find(k + ".lora_A.weight"), "");
    const auto stored_b = pesc::to_floats(*set.find(k + ".lora_B.weight"), "");
    for (index_t i = 0; i < 4 * c.hidden; ++i)
      CHECK(a[static_cast<std::size_t>(i)] == (i < c.hidden ? stored_a[static_cast<std::size_t>(i)] : 0.0f));
    for (index_t i = 0; i < rows * 4; ++i)
      CHECK(b[static_cast<std::size_t>(i)] ==
            (i % 4 == 0 ? 4 * stored_b[static_cast<std::size_t>(i / 4)] : 0.0f));
  }

  TEST_CASE("scales whose quotient is no power of two cannot be folded in and are named") {
    const auto c = support::tiny_llama();
    const std::string q = "model.layers.0.self_attn.q_proj", k = "model.layers.1.self_attn.k_proj";
    const std::string v = "model.layers.1.self_attn.v_proj";
    const auto file = make_adapter({{q, 4}, {k, 3}, {v, 4}}, c);
    pesc::tensor_set set;
    const auto lora = pesc::read_adapter(file, parse(", \"rank_pattern\": {\"k_proj\": 3}"), c, set);
    std::vector<float> b(static_cast<std::size_t>(c.kv_heads * c.head_dim * 4));
    const auto text = support::message_of([&] {
      pesc::fill_low_rank(*set.find(k + ".lora_B.weight"), k + ".lora_B.weight", lora,
                          {b.data(), c.kv_heads * c.head_dim, 4}, "f");
    });
    CHECK(support::contains(text, "f: the update of \"" + k + "\" is scaled by 2.6"));
    CHECK(support::contains(text, "others by 2: these cannot be trained with one scale"));
    // Roots of ranks give such quotients where the ranks differ by a factor of four.
    pesc::tensor_set other;
    const auto stable = pesc::read_adapter(make_adapter({{q, 8}, {v, 8}, {k, 2}}, c),
                                           parse(", \"use_rslora\": true, \"rank_pattern\": {\"k_proj\": 2, "
                                                 "\".*\": 8}"),
                                           c, other);
    b.resize(static_cast<std::size_t>(c.kv_heads * c.head_dim * 8));
    pesc::fill_low_rank(*other.find(k + ".lora_B.weight"), k + ".lora_B.weight", stable,
                        {b.data(), c.kv_heads * c.head_dim, 8}, "f");
    CHECK(b[0] == 2 * pesc::to_floats(*other.find(k + ".lora_B.weight"), "")[0]);
  }

  TEST_CASE("an update is added with the rank and scale of its module") {
    const auto c = support::tiny_llama();
    const std::string down = "model.layers.1.mlp.down_proj", q = "model.layers.0.self_attn.q_proj";
    const auto file = make_adapter({{q, 4}, {down, 3}}, c);
    pesc::tensor_set set;
    const auto lora = pesc::read_adapter(
        file, parse(", \"rank_pattern\": {\"down_proj\": 3}, \"alpha_pattern\": {\"down_proj\": 7}"), c, set);
    CHECK(pesc::has_update(set, down));
    CHECK_FALSE(pesc::has_update(set, "model.layers.1.mlp.up_proj"));
    auto weight = support::normal_floats(c.hidden * c.intermediate, 3, 1.0);
    const auto expected = expected_sum(set, down, 7.0 / 3.0, weight, c.intermediate);
    pesc::add_update(set, lora, down, {weight.data(), c.hidden, c.intermediate}, "f");
    CHECK(support::near(weight, expected, 1e-6));
  }

  TEST_CASE("rows of queries and keys are taken in the order of the model") {
    const auto c = support::tiny_llama();
    const std::string q = "model.layers.0.self_attn.q_proj", v = "model.layers.0.self_attn.v_proj";
    const auto file = make_adapter({{q, 4}, {v, 4}}, c);
    pesc::tensor_set plain, turned;
    pesc::read_adapter(file, parse(""), c, plain);
    pesc::read_adapter(file, parse(""), c, turned,
                       {c.head_dim, pesc::rope_pairing::halves, pesc::rope_pairing::neighbours});
    const auto values = [](const pesc::tensor_set& set, const std::string& name) {
      return pesc::to_floats(*set.find(name), "");
    };
    CHECK(values(plain, q + ".lora_A.weight") == values(turned, q + ".lora_A.weight"));
    CHECK(values(plain, v + ".lora_B.weight") == values(turned, v + ".lora_B.weight"));
    const auto a = values(plain, q + ".lora_B.weight"), b = values(turned, q + ".lora_B.weight");
    CHECK(b[0] == a[0]);
    CHECK(b[4] == a[3 * 4]);  // row 1 is row 0 + 6 / 2
    CHECK(b[8] == a[1 * 4]);  // row 2 is row 1
    CHECK(b[6 * 4 + 4] == a[(6 + 3) * 4]);
  }
}
