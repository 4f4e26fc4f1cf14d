// SPDX-License-Identifier: Apache-2.0
#include "pesc/model/peft.hpp"

#include <cmath>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "support/data.hpp"
#include "support/message_of.hpp"
#include "support/tiny_model.hpp"

namespace {

const std::string text =
    "{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 8, \"lora_dropout\": 0.5, \"bias\": \"none\", "
    "\"use_dora\": false, "
    "\"modules_to_save\": null, \"rank_pattern\": {}, \"target_modules\": [\"q_proj\", "
    "\"model.layers.0.mlp.up_proj\"]}";

pesc::lora_config parse(const std::string& json) {
  return pesc::parse_adapter_config(pesc::parse_json(json, "a"), "a");
}

std::string changed(const std::string& from, const std::string& to) {
  std::string out = text;
  return out.replace(out.find(from), from.size(), to);
}
std::string refusal(const std::string& from, const std::string& to) {
  return support::message_of([&] { static_cast<void>(parse(changed(from, to))); });
}

/// The error of reading a PEFT file with these tensors, and what was taken.
std::string read(const std::map<std::string, std::vector<pesc::index_t>>& tensors, pesc::tensor_set& out) {
  const std::vector<float> zeros(1000);
  pesc::safetensors_writer writer;
  for (const auto& [name, shape] : tensors)
    writer.add(name, shape, std::span{zeros}.first(static_cast<std::size_t>(shape[0] * shape[1])));
  const auto file = pesc::safetensors_file::from_bytes("a", writer.to_bytes());
  return support::message_of([&] { pesc::read_adapter(file, {4, 8, 0, {}}, support::tiny_llama(), out); });
}

}  // namespace

TEST_SUITE("model/peft") {
  TEST_CASE("a configuration tells rank, scale, dropout and modules") {
    const auto lora = parse(text);
    CHECK(lora == pesc::lora_config{4, 8.0, 0.5, {"q_proj", "model.layers.0.mlp.up_proj"}});
  }

  TEST_CASE("rank-stabilised scaling is folded into alpha") {
    const auto lora = parse(changed("\"r\": 4", "\"use_rslora\": true, \"r\": 4"));
    CHECK(lora.alpha / 4 == doctest::Approx(8.0 / std::sqrt(4.0)));
  }

  TEST_CASE("what is written is read as the same") {
    for (const double alpha : {16.0, 0.3, 1e20}) {
      pesc::lora_config lora{8, alpha, 0.05, {"q_proj"}};
      CHECK(parse(to_string(to_json(lora))) == lora);
    }
    CHECK(parse(to_string(to_json(pesc::lora_config{}))).target_modules.size() == 7);
    CHECK(support::contains(to_string(to_json(pesc::lora_config{8, 16, 0, {}})), "\"lora_alpha\":16,"));
  }

  TEST_CASE("files of PEFT itself are read") {
    const auto folder = support::external_golden("lora_model");
    if (!folder) PESC_SKIP("no golden folder lora_model");
    for (const char* name : {"all_linear", "qv_rslora"}) {
      const std::string path = (*folder / name / "adapter").string();
      const auto lora = pesc::parse_adapter_config(pesc::read_json(path + "/adapter_config.json"), path);
      const auto config =
          pesc::parse_config(pesc::read_json((*folder / name / "base/config.json").string()), path);
      pesc::tensor_set out;
      pesc::read_adapter(pesc::safetensors_file::open(path + "/adapter_model.safetensors"), lora,
                         config.llama, out);
      CHECK(out.size() == 2 * config.llama.layers * static_cast<pesc::index_t>(lora.target_modules.size()));
    }
  }

  TEST_CASE("variants that compute something else are refused by name") {
    using support::contains;
    CHECK(contains(refusal("LORA", "IA3"), "\"peft_type\" is \"IA3\", expected \"LORA\""));
    CHECK(contains(refusal("\"r\": 4", "\"r\": 0"), "\"r\" is 0, expected 1 to 65536"));
    CHECK(contains(refusal("\"lora_alpha\": 8", "\"x\": 8"), "\"lora_alpha\" is missing"));
    CHECK(contains(refusal("\"lora_alpha\": 8", "\"lora_alpha\": 1e300"), "expected a finite number"));
    CHECK(contains(refusal("\"none\"", "\"all\""), "\"bias\" is \"all\""));
    CHECK(contains(refusal("\"use_dora\": false", "\"use_dora\": true"),
                   "\"use_dora\" is set, which is not supported"));
    CHECK(
        contains(refusal("\"rank_pattern\": {}", "\"rank_pattern\": {\"q\": 2}"), "\"rank_pattern\" is set"));
    CHECK(contains(refusal("\"modules_to_save\": null", "\"modules_to_save\": [\"lm_head\"]"),
                   "\"modules_to_save\" is set"));
    CHECK(contains(refusal("0.5", "1.0"), "\"lora_dropout\" is 1"));
    CHECK(contains(refusal("\"q_proj\"", "\"c_attn\""), "holds \"c_attn\", expected q_proj"));
    CHECK(refusal("[\"q_proj\", \"model.layers.0.mlp.up_proj\"]", "\"all-linear\"") == "no error");
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
}
