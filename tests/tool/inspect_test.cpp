// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "support/message_of.hpp"
#include "tool/program.hpp"
#include "tool/story_gguf.hpp"

using support::bundled;
using support::pesc_program;

namespace {

nlohmann::json look(const std::string& path) {
  const auto result = pesc_program({"inspect", path, "--json", "-"});
  REQUIRE(result.status == 0);
  return nlohmann::json::parse(result.out);
}

}  // namespace

TEST_SUITE("tool/inspect") {
  TEST_CASE("tells models, tensors, tokenizers and data apart") {
    const support::temporary_folder folder;
    const std::string model = support::crafted(folder);
    CHECK(look(bundled("stories260K.bin")).at("sparse") == false);
    CHECK(look(model).at("sparse") == true);
    CHECK(look(model).at("config").at("num_experts") == 8);
    const auto tensors = look(model + "/model.safetensors").at("tensors");
    CHECK(tensors.at("model.layers.0.mlp.moe_adapter.router.weight").at("shape") ==
          nlohmann::json::parse("[8, 64]"));
    CHECK(look(bundled("tok512.bin")).at("pieces") == 512);
    CHECK(look(support::test_data("golden/tokenizer/tokenizer.json").string()).at("pieces") == 512);
    CHECK(look(bundled("mbpp.jsonl")).at("records") == 974);
  }

  TEST_CASE("a GGUF file: types, tokenizer, chat template and what the commands would say") {
    const support::temporary_folder folder;
    const auto found = look(support::story_gguf(folder, {.chat_template = "{{ messages }}", .q8_0 = true}));
    CHECK(found.at("container") == "GGUF file");
    CHECK(found.at("types").at("Q8_0").at("tensors") == 31);
    CHECK(found.at("types").at("F32").at("tensors") == 16);
    CHECK(found.at("projections") == 35);
    CHECK(found.at("tokenizer").at("pieces") == 512);
    CHECK(found.at("tokenizer").at("chat_template") == "unknown (name one with --template)");
    CHECK(found.at("accepted").at("generate, chat, evaluate") == true);
    CHECK(found.at("accepted").at("craft") == true);
    CHECK(support::contains(found.at("accepted").at("tune"), "craft it first"));
  }

  TEST_CASE(
      "a GGUF file of another architecture is listed, and refused by every command with the same words") {
    const support::temporary_folder folder;
    const std::string model = support::story_gguf(folder, {.architecture = "mamba"});
    const auto found = look(model);
    CHECK(found.at("keys").at("general.architecture") == "mamba");
    const std::string why = found.at("accepted").at("generate, chat, evaluate, craft, tune");
    CHECK(support::contains(why, "mamba"));
    CHECK(pesc_program({"generate", "--model", model}).says(why));
    CHECK(pesc_program({"craft", "--model", model, "--out", folder.path("x")}).says(why));
  }

  TEST_CASE("output that cannot be written is an error of one line") {
    const auto result = pesc_program({"inspect", bundled("stories260K.bin")}, "", "", "/dev/full");
    CHECK(result.status == 1);
    CHECK(result.says("standard output cannot be written"));
    CHECK(result.error_lines() == 1);
  }

  TEST_CASE("prints text for people without --json") {
    const auto result = pesc_program({"inspect", bundled("stories260K.bin")});
    CHECK(result.status == 0);
    CHECK(result.out.find("hidden 64") != std::string::npos);
  }
}
