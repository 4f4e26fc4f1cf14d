// SPDX-License-Identifier: Apache-2.0
#include "pesc/model/export_config.hpp"

#include <string>

#include <doctest/doctest.h>

#include "support/tiny_model.hpp"

namespace {

using enum pesc::export_target;

pesc::json written(const pesc::model_config& config, pesc::export_target target,
                   const std::optional<pesc::quantization_config>& quantization = {}) {
  return pesc::export_config(config, target, "bfloat16", quantization);
}

std::string text(const pesc::json& value, const char* key) {
  const pesc::json* found = value.find(key);
  return found == nullptr ? "absent" : to_string(*found);
}

}  // namespace

TEST_SUITE("model/export_config") {
  TEST_CASE("every target is read back as the same model in the order of Hugging Face files") {
    pesc::model_config config{support::tiny_llama(), {}, {}, ""};
    config.llama.rope = {pesc::rope_pairing::neighbours, pesc::rope_scaling::linear, 5e5, 4.0};
    config.llama.tie_embeddings = true;
    config.llama.attention_bias = true;
    config.llama.eos = {2, 5};
    for (const auto target : {hf, hf_4bit}) {
      const auto read = pesc::parse_config(written(config, target), "c");
      CHECK(read.llama.rope.pairing == pesc::rope_pairing::halves);
      CHECK(read.llama.rope.scaling == pesc::rope_scaling::linear);
      CHECK(read.llama.rope.factor == 4.0);
      CHECK(read.llama.rope.theta == 5e5);
      CHECK(read.llama.kv_heads == config.llama.kv_heads);
      CHECK(read.llama.tie_embeddings);
      CHECK(read.llama.attention_bias);
      CHECK(read.llama.eos == config.llama.eos);
      CHECK(read.dtype == "bfloat16");
      CHECK_FALSE(read.pesc);
    }
  }

  TEST_CASE("rotary positions are told in the spelling of old and new readers") {
    pesc::model_config config{support::tiny_llama(), {}, {}, ""};
    auto out = written(config, hf);
    CHECK(text(out, "rope_theta") == "10000.0");
    CHECK(text(out, "rope_scaling") == "null");
    CHECK(text(out, "rope_parameters") == "{\"rope_theta\":10000.0,\"rope_type\":\"default\"}");
    config.llama.rope.scaling = pesc::rope_scaling::linear;
    config.llama.rope.factor = 2.0;
    out = written(config, hf);
    // The oldest readers refuse a third key.
    CHECK(text(out, "rope_scaling") == "{\"type\":\"linear\",\"factor\":2.0}");
    CHECK(text(out, "rope_parameters") == "{\"rope_theta\":10000.0,\"rope_type\":\"linear\",\"factor\":2.0}");
    config.llama.rope.scaling = pesc::rope_scaling::llama3;
    out = written(config, hf);
    CHECK(out.find("rope_parameters")->find("low_freq_factor") != nullptr);
    CHECK(out.find("rope_scaling")->find("rope_type") != nullptr);
  }

  TEST_CASE("4-bit folders carry the keys that transformers needs") {
    const auto out = written({support::tiny_llama(), {}, {}, ""}, hf_4bit,
                             pesc::quantization_config{"nf4", true, "bfloat16", "uint8"});
    const auto* q = out.find("quantization_config");
    REQUIRE(q != nullptr);
    for (const auto& [key, value] : {std::pair{"load_in_4bit", "true"},
                                     {"bnb_4bit_quant_type", "\"nf4\""},
                                     {"bnb_4bit_use_double_quant", "true"},
                                     {"bnb_4bit_compute_dtype", "\"bfloat16\""},
                                     {"bnb_4bit_quant_storage", "\"uint8\""},
                                     {"quant_method", "\"bitsandbytes\""},
                                     {"llm_int8_skip_modules", "[\"lm_head\"]"}})
      CHECK(text(*q, key) == value);
  }

  TEST_CASE("mixtures carry the keys of their families") {
    const pesc::model_config config{support::tiny_llama(), support::tiny_experts(), {}, ""};
    const auto first = written(config, camelidae);
    CHECK(text(first, "model_type") == "\"llama\"");
    CHECK(text(first, "rope_parameters") == "absent");
    const auto second = written(config, sparsetral);
    CHECK(text(second, "model_type") == "\"sparsetral\"");
    CHECK(text(second, "architectures") == "[\"MistralForCausalLM\"]");
    CHECK(text(second, "sliding_window") == "null");
    for (const auto& out : {first, second}) {
      CHECK(text(out, "num_experts") == "3");
      CHECK(text(out, "topk") == "2");
      CHECK(text(out, "adapter_dim") == "5");
      CHECK(text(out, "moe_scaling") == "0.5");
      CHECK(text(out, "moe_dtype") == "\"bfloat16\"");
      CHECK(text(out, "output_router_logits") == "true");
      CHECK(pesc::parse_config(out, "c").pesc->experts == 3);
    }
  }
}
