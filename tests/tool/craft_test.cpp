// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "tool/program.hpp"

using support::bundled;
using support::pesc_program;

TEST_SUITE("tool/craft") {
  TEST_CASE("a crafted folder holds what loaders of other programs look for") {
    const support::temporary_folder folder;
    const std::string model =
        support::crafted(folder, {"--experts", "4", "--top-k", "3", "--rank", "5", "--lora", "3"});
    const auto config = nlohmann::json::parse(support::read_text(model + "/config.json"));
    CHECK(config.at("num_experts") == 4);
    CHECK(config.at("topk") == 3);
    CHECK(config.at("adapter_dim") == 5);
    CHECK(config.at("quantization_config").at("bnb_4bit_quant_type") == "nf4");
    const auto adapter = nlohmann::json::parse(support::read_text(model + "/adapter_config.json"));
    CHECK(adapter.at("r") == 3);
    CHECK(adapter.at("lora_alpha") == 16);
    CHECK(std::filesystem::exists(model + "/tok512.bin"));
    CHECK(std::filesystem::exists(model + "/manifest.json"));
  }

  TEST_CASE("the same options make the same bytes, another seed other ones") {
    const support::temporary_folder folder;
    const auto bytes = [&](const char* seed) {
      return support::read_text(support::crafted(folder, {"--seed", seed}) + "/model.safetensors");
    };
    const std::string first = bytes("3");
    CHECK(first == bytes("3"));
    CHECK(first != bytes("4"));
  }

  TEST_CASE("no experts: the twin that has low-rank updates alone") {
    const support::temporary_folder folder;
    const std::string model = support::crafted(folder, {"--experts", "0"});
    const auto config = nlohmann::json::parse(support::read_text(model + "/config.json"));
    CHECK(!config.contains("num_experts"));
    CHECK(std::filesystem::exists(model + "/adapter_model.safetensors"));
  }

  TEST_CASE("sizes that do not fit are wrong usage, and nothing is written") {
    const support::temporary_folder folder;
    const std::vector<std::vector<std::string>> wrong{{"--rank", "65"},
                                                      {"--rank", "0"},
                                                      {"--top-k", "9"},
                                                      {"--top-k", "17"},
                                                      {"--experts", "4", "--top-k", "5"},
                                                      {"--block", "48"},
                                                      {"--weights", "nf5"},
                                                      {"--experts", "0", "--lora", "0"},
                                                      {"--seed", "-1"},
                                                      {"--alpha", "nan"},
                                                      {"--expert", "4"}};
    for (const auto& options : wrong) {
      CAPTURE(options[0] + ' ' + options[1]);
      std::vector<std::string> arguments{"craft", "--model", bundled("stories260K.bin"), "--out",
                                         folder.path("out")};
      arguments.insert(arguments.end(), options.begin(), options.end());
      const auto result = pesc_program(arguments);
      CHECK(result.status == 2);
      CHECK(result.error_lines() >= 1);
      CHECK(result.error_lines() <= 3);
      CHECK(!std::filesystem::exists(folder.path("out")));
    }
  }

  TEST_CASE("a tokenizer.json goes into the folder and is read from there") {
    const support::temporary_folder folder;
    const std::string file = support::test_data("golden/tokenizer/tokenizer.json").string();
    CHECK(pesc_program({"craft", "--quiet", "--model", bundled("stories260K.bin"), "--tokenizer", file,
                        "--out", folder.path("out")})
              .status == 0);
    CHECK(support::read_text(folder.path("out/tokenizer.json")) == support::read_text(file));
    CHECK(pesc_program(
              {"generate", "--model", folder.path("out"), "--prompt", "the <s> day", "--max-tokens", "4"})
              .status == 0);
  }

  TEST_CASE("weights that are not finite are bad input, named by tensor") {
    const support::temporary_folder folder;
    std::string bytes = support::read_text(bundled("stories260K.bin"));
    const std::size_t query = 28 + 4 * (512 * 64 + 5 * 64);
    for (std::size_t i = 0; i < 4; ++i) bytes[query + 400 + i] = static_cast<char>(0xFF);
    const auto result = pesc_program({"craft", "--model", folder.write("m.bin", bytes), "--tokenizer",
                                      bundled("tok512.bin"), "--out", folder.path("out")});
    CHECK(result.status == 1);
    CHECK(result.says("q_proj"));
    CHECK(result.error_lines() == 1);
  }
}
