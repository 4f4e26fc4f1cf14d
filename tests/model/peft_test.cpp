// SPDX-License-Identifier: Apache-2.0
#include "pesc/model/peft.hpp"

#include <cmath>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "support/message_of.hpp"

namespace {

const std::string text =
    "{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 8, \"lora_dropout\": 0.5, \"bias\": \"none\", "
    "\"use_dora\": false, "
    "\"modules_to_save\": null, \"rank_pattern\": {}, \"target_modules\": [\"q_proj\", "
    "\"model.layers.0.mlp.up_proj\"]}";

pesc::adapter_config parse(const std::string& json) {
  return pesc::parse_adapter_config(pesc::parse_json(json, "a"), "a");
}

std::string changed(const std::string& from, const std::string& to) {
  std::string out = text;
  return out.replace(out.find(from), from.size(), to);
}
std::string refusal(const std::string& from, const std::string& to) {
  return support::message_of([&] { static_cast<void>(parse(changed(from, to))); });
}

}  // namespace

TEST_SUITE("model/peft") {
  TEST_CASE("a configuration tells rank, scale, dropout and modules") {
    const auto lora = parse(text);
    CHECK(lora == pesc::adapter_config{4, 8.0, 0.5, {"q_proj", "model.layers.0.mlp.up_proj"}});
    CHECK(lora.of("model.layers.0.mlp.up_proj") == pesc::lora_module{4, 8.0});
    CHECK(lora.of("model.layers.0.mlp.up_proj").scale() == 2.0);
  }

  TEST_CASE("rank-stabilised scaling is folded into alpha") {
    const auto lora = parse(changed("\"r\": 4", "\"use_rslora\": true, \"r\": 4"));
    CHECK(lora.of("q_proj").scale() == doctest::Approx(8.0 / std::sqrt(4.0)));
  }

  TEST_CASE("modules may have ranks and scales of their own, the first pattern counts") {
    const auto lora =
        parse(changed("\"rank_pattern\": {}",
                      "\"rank_pattern\": {\"layers.0.self_attn.q_proj\": 2, \"q_proj\": 16, \".*_proj\": 3}, "
                      "\"alpha_pattern\": {\"^model.layers.1.*k_proj\": 0.5}"));
    CHECK(lora.of("model.layers.0.self_attn.q_proj") == pesc::lora_module{2, 8.0});
    CHECK(lora.of("model.layers.1.self_attn.q_proj") == pesc::lora_module{16, 8.0});
    CHECK(lora.of("model.layers.1.self_attn.k_proj") == pesc::lora_module{3, 0.5});
    CHECK(lora.of("model.layers.0.self_attn.k_proj") == pesc::lora_module{3, 8.0});
    CHECK(lora.of("other") == pesc::lora_module{4, 8.0});
    CHECK(parse(to_string(to_json(lora))) == lora);
  }

  TEST_CASE("what is written is read as the same") {
    for (const double alpha : {16.0, 0.3, 1e20}) {
      pesc::adapter_config lora{8, alpha, 0.05, {"q_proj"}};
      lora.rslora = alpha == 16.0;
      lora.base_model = "some/model";
      CHECK(parse(to_string(to_json(lora))) == lora);
    }
    CHECK(parse(to_string(to_json(pesc::adapter_config{}))).target_modules.size() == 7);
    CHECK(support::contains(to_string(to_json(pesc::adapter_config{8, 16, 0, {}})), "\"lora_alpha\":16,"));
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
    CHECK(contains(refusal("\"rank_pattern\": {}", "\"rank_pattern\": {\"q\": 0}"),
                   "key \"rank_pattern.q\" is 0, expected 1 to 65536"));
    CHECK(contains(refusal("\"rank_pattern\": {}", "\"rank_pattern\": {\"q\": true}"),
                   "key \"rank_pattern.q\" is"));
    CHECK(contains(refusal("\"rank_pattern\": {}", "\"rank_pattern\": {\"(?=q)\": 2}"),
                   "key \"rank_pattern\": pattern \"(?=q)\" holds"));
    CHECK(contains(refusal("\"rank_pattern\": {}", "\"alpha_pattern\": {\"q\": 1e300}"),
                   "expected a finite number"));
    CHECK(contains(refusal("\"modules_to_save\": null", "\"modules_to_save\": [\"lm_head\"]"),
                   "\"modules_to_save\" is set"));
    CHECK(contains(refusal("0.5", "1.0"), "\"lora_dropout\" is 1"));
    CHECK(contains(refusal("\"q_proj\"", "\"c_attn\""), "holds \"c_attn\", expected q_proj"));
    CHECK(refusal("[\"q_proj\", \"model.layers.0.mlp.up_proj\"]", "\"all-linear\"") == "no error");
  }
}
