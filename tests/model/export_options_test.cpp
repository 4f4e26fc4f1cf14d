// SPDX-License-Identifier: Apache-2.0
#include "pesc/model/export_options.hpp"

#include <string>

#include <doctest/doctest.h>

#include "support/message_of.hpp"
#include "support/tiny_model.hpp"

namespace {

using enum pesc::export_target;

pesc::loaded_model<> model(bool sparse, bool lora) {
  pesc::loaded_model<> out;
  out.name = "m";
  out.config.llama = support::tiny_llama();
  if (sparse) out.config.pesc = support::tiny_experts();
  if (lora) out.lora = pesc::lora_config{};
  return out;
}

std::string refusal(const pesc::loaded_model<>& m, pesc::export_target target) {
  return support::message_of([&] { pesc::check_target(m, target); });
}

}  // namespace

TEST_SUITE("model/export_options") {
  TEST_CASE("targets have the names of the program's option") {
    for (const char* name : {"hf", "hf-4bit", "peft", "camelidae", "sparsetral"})
      CHECK(std::string{pesc::name_of(*pesc::export_target_named(name))} == name);
    CHECK_FALSE(pesc::export_target_named("gguf"));
  }

  TEST_CASE("a target that cannot hold the model is refused by name") {
    CHECK(refusal(model(true, false), hf) ==
          "m: the format hf holds no experts; use camelidae or sparsetral");
    CHECK(refusal(model(true, true), hf_4bit) ==
          "m: the format hf-4bit holds no experts; use camelidae or sparsetral");
    CHECK(refusal(model(false, false), peft) ==
          "m: the format peft holds low-rank updates, and this model has none; use hf");
    CHECK(refusal(model(false, true), camelidae) ==
          "m: the format camelidae holds a mixture of experts, and this model is dense; use hf");
    CHECK(refusal(model(false, true), sparsetral) ==
          "m: the format sparsetral holds a mixture of experts, and this model is dense; use hf");
  }

  TEST_CASE("what the published code of mixtures fixes is refused where the model differs") {
    auto m = model(true, false);
    for (const auto target : {camelidae, sparsetral}) CHECK(refusal(m, target) == "no error");
    m.config.llama.rope.scaling = pesc::rope_scaling::linear;
    CHECK(refusal(m, camelidae) == "no error");
    CHECK(support::contains(refusal(m, sparsetral), "sparsetral has no rotary positions that are stretched"));
    m.config.llama.rope.scaling = pesc::rope_scaling::llama3;
    CHECK(support::contains(refusal(m, camelidae), "camelidae has no rotary positions that are stretched"));
    m.config.llama.rope.scaling = pesc::rope_scaling::none;
    m.config.llama.head_dim = 8;
    CHECK(support::contains(refusal(m, camelidae),
                            "has heads of hidden_size / num_attention_heads only, not of 8"));
    m.config.llama.attention_bias = true;
    CHECK(support::contains(refusal(m, camelidae), "has projections without bias only"));
  }

  TEST_CASE("what a target holds is taken") {
    CHECK(refusal(model(false, false), hf) == "no error");
    CHECK(refusal(model(false, true), hf_4bit) == "no error");
    CHECK(refusal(model(false, true), peft) == "no error");
    CHECK(refusal(model(true, true), peft) == "no error");
  }
}
