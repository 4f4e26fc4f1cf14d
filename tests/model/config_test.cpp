// SPDX-License-Identifier: Apache-2.0
#include "pesc/model/config.hpp"

#include <filesystem>
#include <string>

#include <doctest/doctest.h>

#include "support/data.hpp"
#include "support/message_of.hpp"

using pesc::json;
using pesc::model_config;
using support::message_of;

namespace {

/// A small dense model, with this text put in before the closing brace.
std::string small(const std::string& more = {}) {
  return R"({"vocab_size": 96, "hidden_size": 32, "intermediate_size": 86, "num_hidden_layers": 2,
             "num_attention_heads": 4)" +
         (more.empty() ? "" : ", " + more) + "}";
}

model_config parsed(const std::string& text) {
  return pesc::parse_config(pesc::parse_json(text, "config.json"), "config.json");
}

std::string refusal(const std::string& text) {
  return message_of([&] { static_cast<void>(parsed(text)); });
}

/// The small model with one value replaced.
std::string with(const std::string& key, const json& value) {
  json text = pesc::parse_json(small(), "f");
  text.set(key, value);
  return to_string(text);
}

}  // namespace

TEST_SUITE("model/config") {
  TEST_CASE("absent keys take the defaults of the published code") {
    const model_config m = parsed(small());
    const pesc::llama_config& c = m.llama;
    CHECK(c.vocab == 96);
    CHECK(c.hidden == 32);
    CHECK(c.intermediate == 86);
    CHECK(c.layers == 2);
    CHECK(c.heads == 4);
    CHECK(c.kv_heads == 4);
    CHECK(c.head_dim == 8);
    CHECK(c.rms_eps == 1e-6);
    CHECK(c.max_positions == 2048);
    CHECK(c.rope.theta == 10000.0);
    CHECK(c.rope.scaling == pesc::rope_scaling::none);
    CHECK(c.rope.pairing == pesc::rope_pairing::halves);
    CHECK_FALSE(c.attention_bias);
    CHECK_FALSE(c.mlp_bias);
    CHECK_FALSE(c.tie_embeddings);
    CHECK(c.bos == 1);
    CHECK(c.eos == std::vector<std::int32_t>{2});
    CHECK_FALSE(m.pesc.has_value());
    CHECK_FALSE(m.quantization.has_value());
    CHECK(m.dtype.empty());
  }

  TEST_CASE("old and new keys mean the same") {
    const model_config old = parsed(small(
        R"("rope_theta": 500000.0, "rope_scaling": {"type": "linear", "factor": 4.0}, "torch_dtype": "bfloat16")"));
    const model_config now = parsed(small(
        R"("rope_parameters": {"rope_theta": 500000.0, "rope_type": "linear", "factor": 4.0}, "dtype": "bfloat16")"));
    for (const model_config* m : {&old, &now}) {
      CHECK(m->llama.rope.theta == 500000.0);
      CHECK(m->llama.rope.scaling == pesc::rope_scaling::linear);
      CHECK(m->llama.rope.factor == 4.0);
      CHECK(m->dtype == "bfloat16");
    }
    CHECK(parsed(small(R"("rope_scaling": null)")).llama.rope.scaling == pesc::rope_scaling::none);
    CHECK(parsed(small(R"("rope_parameters": {"rope_theta": 7.5})")).llama.rope.theta == 7.5);
  }

  TEST_CASE("llama3 scaling reads all its numbers") {
    const auto rope =
        parsed(small(R"("rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.5,
        "high_freq_factor": 4.5, "original_max_position_embeddings": 64}, "rope_theta": 500000)"))
            .llama.rope;
    CHECK(rope.scaling == pesc::rope_scaling::llama3);
    CHECK(rope.factor == 8.0);
    CHECK(rope.low_frequency_factor == 1.5);
    CHECK(rope.high_frequency_factor == 4.5);
    CHECK(rope.original_positions == 64.0);
    CHECK(rope.theta == 500000.0);
  }

  TEST_CASE("end marks may be one, several or none") {
    CHECK(parsed(small(R"("eos_token_id": [5, 7])")).llama.eos == std::vector<std::int32_t>{5, 7});
    CHECK(parsed(small(R"("eos_token_id": 0)")).llama.eos == std::vector<std::int32_t>{0});
    CHECK(parsed(small(R"("eos_token_id": [], "bos_token_id": 3)")).llama.eos.empty());
    CHECK(parsed(small(R"("eos_token_id": null)")).llama.eos.empty());
    CHECK(parsed(small(R"("bos_token_id": null)")).llama.bos == -1);
    CHECK(parsed(with("vocab_size", 1)).llama.eos.empty());
    CHECK(parsed(with("vocab_size", 1)).llama.bos == -1);
  }

  TEST_CASE("a sparse model is told by its keys, not by its type") {
    const auto named =
        parsed(small(R"("model_type": "llama", "adapter_dim": 16, "num_experts": 8, "topk": 2)")).pesc;
    REQUIRE(named.has_value());
    CHECK(named->experts == 8);
    CHECK(named->top_k == 2);
    CHECK(named->adapter_dim == 16);
    CHECK(named->moe_scaling == 0.25);
    CHECK(named->output_router_logits);
    const auto few = parsed(small(R"("adapter_dim": 32)")).pesc;
    REQUIRE(few.has_value());
    CHECK(few->experts == 8);
    CHECK(few->top_k == 1);
    const auto other = parsed(small(R"("model_type": "sparsetral")")).pesc;
    REQUIRE(other.has_value());
    CHECK(other->experts == 16);
    CHECK(other->top_k == 4);
    CHECK(other->moe_scaling == 1.0);
    CHECK_FALSE(other->output_router_logits);
    CHECK_FALSE(parsed(small(R"("num_experts": 8)")).pesc.has_value());
  }

  TEST_CASE("4-bit storage is read") {
    const auto q = parsed(small(R"("quantization_config": {"load_in_4bit": true, "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": true, "bnb_4bit_compute_dtype": "bfloat16", "quant_method": "bitsandbytes"})"))
                       .quantization;
    REQUIRE(q.has_value());
    CHECK(q->quant_type == "nf4");
    CHECK(q->double_quant);
    CHECK(q->compute_dtype == "bfloat16");
    CHECK(q->quant_storage == "uint8");
    CHECK_FALSE(parsed(small(R"("quantization_config": {"load_in_4bit": false})")).quantization.has_value());
    CHECK_FALSE(parsed(small(R"("quantization_config": null)")).quantization.has_value());
  }

  TEST_CASE("what is wrong or not computed here is refused with key and value") {
    struct row {
      std::string text, expected;
    };
    const row rows[] = {
        {"[]", "config.json: the text is a list, expected an object"},
        {"{}", "config.json: key \"vocab_size\" is missing, expected an integer"},
        {with("hidden_size", json{}), "config.json: key \"hidden_size\" is missing, expected an integer"},
        {with("hidden_size", "32"), "config.json: key \"hidden_size\" is a string, expected an integer"},
        {with("hidden_size", 32.0), "config.json: key \"hidden_size\" is a number, expected an integer"},
        {with("hidden_size", 0), "config.json: key \"hidden_size\" is 0, expected 1 to 16777216"},
        {with("num_hidden_layers", -2), "config.json: key \"num_hidden_layers\" is -2, expected 1 to 65536"},
        {with("vocab_size", std::int64_t{1} << 40),
         "config.json: key \"vocab_size\" is 1099511627776, expected 1 to 268435456"},
        {with("num_attention_heads", 5),
         "config.json: key \"num_attention_heads\" is 5, expected a divisor of hidden_size 32, or a "
         "head_dim"},
        {with("num_key_value_heads", 3),
         "config.json: key \"num_key_value_heads\" is 3, expected a divisor of num_attention_heads 4"},
        {with("num_key_value_heads", 8),
         "config.json: key \"num_key_value_heads\" is 8, expected a divisor of num_attention_heads 4"},
        {with("head_dim", 7),
         "config.json: the head size is 7, expected an even number for rotary positions"},
        {with("rms_norm_eps", 0), "config.json: key \"rms_norm_eps\" is 0, expected a number above 0"},
        {with("rope_theta", -1.5), "config.json: key \"rope_theta\" is -1.5, expected a number above 0"},
        {with("max_position_embeddings", 0),
         "config.json: key \"max_position_embeddings\" is 0, expected 1 to 2147483647"},
        {with("tie_word_embeddings", 1),
         "config.json: key \"tie_word_embeddings\" is an integer, expected true or false"},
        {with("bos_token_id", 96), "config.json: key \"bos_token_id\" is 96, expected an id from 0 to 95"},
        {with("eos_token_id", -1), "config.json: key \"eos_token_id\" is -1, expected an id from 0 to 95"},
        {small(R"("eos_token_id": [2, "x"])"),
         "config.json: key \"eos_token_id\" is a string, expected an integer"},
        {with("hidden_act", "gelu"),
         "config.json: key \"hidden_act\": \"gelu\" is not supported; results would be wrong. Supported: "
         "silu."},
        {with("model_type", "gemma2"),
         "config.json: key \"model_type\": \"gemma2\" is not supported; results would be "
         "wrong. Supported: llama, mistral, sparsetral."},
        {small(R"("sliding_window": 512)"),
         "config.json: key \"sliding_window\": a window of 512 is not supported; "
         "results would be wrong. Supported: full attention, or a window of at "
         "least max_position_embeddings."},
        {small(R"("rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4})"),
         "config.json: key \"rope_parameters.rope_type\": \"yarn\" is not supported; results would be wrong. "
         "Supported: "
         "default, linear, llama3."},
        {small(R"("rope_scaling": {"type": "dynamic", "factor": 2.0})"),
         "config.json: key \"rope_scaling.type\": \"dynamic\" is not supported; results would be wrong. "
         "Supported: "
         "default, linear, llama3."},
        {small(R"("rope_scaling": {"type": "linear"})"),
         "config.json: key \"rope_scaling.factor\" is missing, expected a number"},
        {small(R"("rope_scaling": {"type": "linear", "factor": 0})"),
         "config.json: key \"rope_scaling.factor\" is 0, expected a number above 0"},
        {small(R"("rope_scaling": "linear")"),
         "config.json: key \"rope_scaling\" is a string, expected an object"},
        {small(R"("rope_parameters": {"rope_type": "default"})"),
         "config.json: key \"rope_parameters.rope_theta\" is missing, expected a number"},
        {small(
             R"("rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64})"),
         "config.json: key \"rope_scaling.high_freq_factor\" is 4, expected more than low_freq_factor 4"},
        {small(
             R"("rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0})"),
         "config.json: key \"rope_scaling.original_max_position_embeddings\" is missing, expected an "
         "integer"},
        {with("partial_rotary_factor", 0.5),
         "config.json: key \"partial_rotary_factor\": 0.5 is not supported; results would be wrong. "
         "Supported: 1"},
        {with("pesc_rope_pairing", "odd"),
         "config.json: key \"pesc_rope_pairing\" is \"odd\", expected \"halves\" or \"neighbours\""},
        {small(R"("adapter_dim": 8, "num_experts": 4, "topk": 5)"),
         "config.json: key \"topk\" is 5, expected at most num_experts 4"},
        {small(R"("adapter_dim": 0)"), "config.json: key \"adapter_dim\" is 0, expected 1 to 16777216"},
        {small(R"("adapter_dim": 8, "topk": 0)"), "config.json: key \"topk\" is 0, expected 1 to 65536"},
        {small(R"("adapter_dim": 8, "moe_scaling": 1e40)"),
         "config.json: key \"moe_scaling\" is 1e+40, expected a finite number"},
        {small(R"("quantization_config": {"quant_method": "gptq", "bits": 4})"),
         "config.json: key \"quantization_config.quant_method\": \"gptq\" is not supported; results would be "
         "wrong. "
         "Supported: bitsandbytes."},
        {small(R"("quantization_config": {"load_in_8bit": true})"),
         "config.json: key \"quantization_config.load_in_8bit\": 8-bit storage is not supported; results "
         "would be "
         "wrong. Supported: load_in_4bit."},
        {small(R"("quantization_config": {"load_in_4bit": true, "bnb_4bit_quant_type": "int4"})"),
         "config.json: key \"quantization_config.bnb_4bit_quant_type\": \"int4\" is not supported; results "
         "would be "
         "wrong. Supported: nf4, fp4."},
    };
    for (const row& r : rows) CHECK(refusal(r.text) == r.expected);
  }

  TEST_CASE("harmless values are not refused") {
    CHECK(refusal(small(R"("sliding_window": null)")) == "no error");
    CHECK(refusal(small(R"("sliding_window": 4096)")) == "no error");
    CHECK(refusal(small(R"("sliding_window": 512, "use_sliding_window": false)")) == "no error");
    CHECK(refusal(small(R"("pad_token_id": -1, "unknown_key": [1, 2])")) == "no error");
    CHECK(parsed(small(R"("head_dim": 12)")).llama.head_dim == 12);
    CHECK(refusal(small(R"("hidden_act": "swish")")) == "no error");
  }

  TEST_CASE("what is written reads back the same") {
    model_config m =
        parsed(small(R"("attention_bias": true, "mlp_bias": true, "tie_word_embeddings": true, "head_dim": 12,
        "num_key_value_heads": 2, "eos_token_id": [2, 3], "torch_dtype": "float16", "adapter_dim": 8, "num_experts": 4,
        "topk": 2, "moe_scaling": 1.5, "output_router_logits": false, "rms_norm_eps": 1e-5, "rope_scaling":
        {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
         "original_max_position_embeddings": 64}, "quantization_config": {"load_in_4bit": true, "bnb_4bit_quant_type":
        "nf4", "bnb_4bit_use_double_quant": true})"));
    m.llama.rope.pairing = pesc::rope_pairing::neighbours;
    const json text = to_json(m);
    const model_config back = parsed(to_string(text, 2));
    CHECK(to_json(back) == text);
    CHECK(back.llama.rope.pairing == pesc::rope_pairing::neighbours);
    CHECK(back.llama.rope.original_positions == 64.0);
    CHECK(back.llama.eos == std::vector<std::int32_t>{2, 3});
    CHECK(back.pesc->moe_scaling == 1.5);
    CHECK_FALSE(back.pesc->output_router_logits);
    CHECK(back.quantization->double_quant);
    CHECK(back.dtype == "float16");
    m.llama.bos = -1;
    m.llama.eos = {};
    m.llama.rope.scaling = pesc::rope_scaling::linear;
    m.llama.rope.factor = 2.0;
    m.pesc.reset();
    m.quantization.reset();
    CHECK(to_json(parsed(to_string(to_json(m)))).find("rope_scaling")->find("factor")->to_double() == 2.0);
    CHECK(parsed(to_string(to_json(m))).llama.eos.empty());
    CHECK(parsed(to_string(to_json(m))).llama.bos == -1);
  }

  TEST_CASE("a llama2.c header becomes a model whose rotary pairs are neighbours") {
    const auto c = pesc::config_of({64, 172, 5, 8, 4, 512, 256, true});
    CHECK(c.hidden == 64);
    CHECK(c.intermediate == 172);
    CHECK(c.layers == 5);
    CHECK(c.heads == 8);
    CHECK(c.kv_heads == 4);
    CHECK(c.head_dim == 8);
    CHECK(c.vocab == 512);
    CHECK(c.max_positions == 256);
    CHECK(c.rms_eps == 1e-5);
    CHECK(c.tie_embeddings);
    CHECK(c.rope.pairing == pesc::rope_pairing::neighbours);
    CHECK(c.eos.front() == 1);
  }

  TEST_CASE("every configuration among the reference outputs reads and comes back") {
    const auto root = support::external_golden();
    if (!root) PESC_SKIP("no folder of reference outputs");
    int sparse = 0, count = 0;
    for (const auto& found : std::filesystem::recursive_directory_iterator(*root)) {
      if (found.path().filename() != "config.json") continue;
      const std::string path = found.path().string();
      const model_config m = pesc::parse_config(pesc::read_json(path), path);
      CHECK(to_json(parsed(to_string(to_json(m)))) == to_json(m));
      sparse += m.pesc.has_value() ? 1 : 0;
      ++count;
    }
    CHECK(count >= 12);
    CHECK(sparse == 2);
  }
}
