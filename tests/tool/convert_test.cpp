// SPDX-License-Identifier: Apache-2.0
#include <filesystem>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "support/message_of.hpp"
#include "tool/program.hpp"
#include "tool/story_gguf.hpp"

using support::bundled;
using support::pesc_program;

namespace {

std::string generated(const std::string& model, std::vector<std::string> options = {}) {
  std::vector<std::string> arguments{"generate", "--model",          model,
                                     "--prompt", "Once upon a time", "--max-tokens",
                                     "24",       "--temperature",    "0"};
  arguments.insert(arguments.end(), options.begin(), options.end());
  const auto result = pesc_program(arguments);
  return result.status == 0 ? result.out : result.err;
}

}  // namespace

TEST_SUITE("tool/convert") {
  TEST_CASE("a converted model goes on as before") {
    const support::temporary_folder folder;
    const auto result =
        pesc_program({"convert", "--model", bundled("stories260K.bin"), "--to", "hf", folder.path("hf")});
    CHECK(result.status == 0);
    CHECK(result.out.starts_with(folder.path("hf") + ": hf, 1.0"));
    const auto config = nlohmann::json::parse(support::read_text(folder.path("hf") + "/config.json"));
    CHECK(config.at("torch_dtype") == "float32");
    CHECK_FALSE(config.contains("pesc_rope_pairing"));
    CHECK(std::filesystem::exists(folder.path("hf") + "/tok512.bin"));
    CHECK(generated(folder.path("hf")) == generated(bundled("stories260K.bin")));
  }

  TEST_CASE("a crafted model goes to every format that holds it") {
    const support::temporary_folder folder;
    const std::string model = support::crafted(folder);
    for (const char* to : {"camelidae", "sparsetral", "peft"}) {
      const auto result = pesc_program({"convert", "--model", model, "--to", to, folder.path(to), "--quiet",
                                        "--dtype", "bf16", "--max-shard-size", "100KB"});
      CAPTURE(result.err);
      CHECK(result.status == 0);
    }
    CHECK(std::filesystem::exists(folder.path("camelidae") + "/model.safetensors.index.json"));
    const auto config = nlohmann::json::parse(support::read_text(folder.path("sparsetral") + "/config.json"));
    CHECK(config.at("model_type") == "sparsetral");
    CHECK(config.at("torch_dtype") == "bfloat16");
    const auto adapter =
        nlohmann::json::parse(support::read_text(folder.path("peft") + "/adapter_config.json"));
    CHECK(adapter.at("base_model_name_or_path") == bundled("stories260K.bin"));
    CHECK(adapter.at("target_modules").size() == 7);
    for (const char* to : {"hf", "hf-4bit"}) {
      const auto result = pesc_program({"convert", "--model", model, "--to", to, folder.path("no")});
      CHECK(result.status == 1);
      CHECK(result.says("holds no experts; use camelidae or sparsetral"));
      CHECK(result.error_lines() == 1);
    }
    CHECK_FALSE(std::filesystem::exists(folder.path("no")));
  }

  TEST_CASE("an adapter is read beside a model, live or merged") {
    const support::temporary_folder folder;
    const std::string twin = support::crafted(folder, {"--experts", "0", "--weights", "float"});
    const std::string base = bundled("stories260K.bin");
    CHECK(pesc_program({"convert", "--model", twin, "--to", "peft", folder.path("peft")}).status == 0);
    const std::string plain = generated(base);
    CHECK(generated(base, {"--adapter", folder.path("peft")}) == plain);
    CHECK(generated(base, {"--adapter", folder.path("peft"), "--merge"}) == plain);
    CHECK(support::contains(generated(base, {"--merge"}), "there are no low-rank updates to merge"));
    const std::vector<std::string> craft{
        "craft", "--model", base, "--out", folder.path("again"), "--adapter", folder.path("peft"), "--quiet"};
    const auto refused = pesc_program(craft);
    CHECK(refused.status == 2);
    CHECK(refused.says("--adapter without --merge: a crafted model gets low-rank updates of its own"));
    auto merged = craft;
    merged.emplace_back("--merge");
    CHECK(pesc_program(merged).status == 0);
    // 4-bit weights: refused, or quantised again.
    CHECK(pesc_program({"convert", "--model", base, "--to", "hf-4bit", folder.path("four")}).status == 0);
    CHECK(support::contains(generated(folder.path("four"), {"--adapter", folder.path("peft"), "--merge"}),
                            "an update cannot be merged into"));
    CHECK(support::contains(
        generated(folder.path("four"), {"--adapter", folder.path("peft"), "--merge", "--requantize"}),
        "Once"));
  }

  TEST_CASE("a GGUF file becomes a folder with its tokenizer, plain and in 4 bits") {
    const support::temporary_folder folder;
    const std::string model = support::story_gguf(folder);
    for (const char* to : {"hf", "hf-4bit"}) {
      CHECK(pesc_program({"convert", "--model", model, "--to", to, folder.path(to)}).status == 0);
      CHECK(std::filesystem::exists(folder.path(to) + "/tokenizer.json"));
    }
    CHECK(generated(folder.path("hf")) == generated(model));
    CHECK(generated(folder.path("hf-4bit")) == generated(model, {"--weights", "nf4-dq"}));
  }

  TEST_CASE("a full disk is one line, and leaves nothing") {
    const support::temporary_folder folder;
    const std::string model = bundled("stories260K.bin");
    const auto full = pesc_program({"convert", "--model", model, "--to", "hf", folder.path("hf"), "--quiet"},
                                   "ulimit -f 200;");
    CHECK(full.status == 1);
    CHECK(full.says("cannot be written: "));
    CHECK(full.error_lines() == 1);
    CHECK(folder.entries() == 0);
    const auto device = pesc_program({"convert", "--model", model, "--to", "hf", "/dev/full/hf"});
    CHECK(device.status == 1);
    CHECK(device.says("/dev/full"));
    CHECK(device.error_lines() == 1);
  }

  TEST_CASE("wrong usage is told in one line") {
    const support::temporary_folder folder;
    const std::string model = bundled("stories260K.bin");
    const std::vector<std::vector<std::string>> wrong{
        {"convert", "--model", model, "--to", "gguf", folder.path("a")},
        {"convert", "--model", model, "--to", "hf"},
        {"convert", "--model", model, folder.path("a")},
        {"convert", "--model", model, "--to", "hf", folder.path("a"), "--max-shard-size", "5TB"},
        {"convert", "--model", model, "--to", "hf", folder.path("a"), "--dtype", "int8"}};
    for (const auto& arguments : wrong) {
      const auto result = pesc_program(arguments);
      CHECK(result.status == 2);
      CHECK(result.says("pesc: "));
    }
    const auto full = pesc_program({"convert", "--model", model, "--to", "hf", folder.path()});
    CHECK(full.status == 0);
    const auto again = pesc_program({"convert", "--model", model, "--to", "hf", folder.path()});
    CHECK(again.status == 1);
    CHECK(again.says("this folder is not empty, and nothing in it is overwritten"));
  }
}
