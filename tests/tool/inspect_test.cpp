// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "tool/program.hpp"

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

  TEST_CASE("prints text for people without --json") {
    const auto result = pesc_program({"inspect", bundled("stories260K.bin")});
    CHECK(result.status == 0);
    CHECK(result.out.find("hidden 64") != std::string::npos);
  }
}
