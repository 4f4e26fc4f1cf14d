// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include "tool/program.hpp"
#include "tool/story_gguf.hpp"

using support::bundled;
using support::pesc_program;

namespace {

const std::string greedy_start =
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, "
    "she saw a big, r";

std::vector<std::string> write(const std::string& model, std::vector<std::string> more) {
  std::vector<std::string> out{"generate", "--model", model, "--quiet"};
  out.insert(out.end(), more.begin(), more.end());
  return out;
}

}  // namespace

TEST_SUITE("tool/generate") {
  TEST_CASE("the dense model writes its known greedy text") {
    const auto result = pesc_program(write(bundled("stories260K.bin"), {"--max-tokens", "200"}));
    CHECK(result.status == 0);
    CHECK(result.out.starts_with(greedy_start));
    CHECK(result.out.ends_with("Lily didn't want to help her mom, so she\n"));
    CHECK(result.err.empty());
  }

  TEST_CASE("a model crafted without quantisation writes the same text, saved and loaded") {
    const support::temporary_folder folder;
    const std::string model = support::crafted(folder, {"--weights", "float"});
    const auto result = pesc_program(write(model, {"--max-tokens", "40"}));
    CHECK(result.status == 0);
    CHECK(result.out == greedy_start + "\n");
  }

  TEST_CASE("every way to store weights and to compute makes a model that writes") {
    for (const char* weights : {"nf4-dq", "nf4", "fp4", "bf16"}) {
      CAPTURE(weights);
      const support::temporary_folder folder;
      const std::string model = support::crafted(folder, {"--weights", weights});
      for (const char* compute : {"float", "bf16"}) {
        const auto result = pesc_program(write(model, {"--compute", compute, "--max-tokens", "5"}));
        CHECK(result.status == 0);
        CHECK(result.out.starts_with("Once upon a time"));
      }
    }
  }

  TEST_CASE("a GGUF file writes as the model that it was made from, its weights in every form") {
    const support::temporary_folder folder;
    const std::string model = support::story_gguf(folder);
    for (const char* weights : {"keep", "float"}) {
      const auto result = pesc_program(write(model, {"--weights", weights, "--max-tokens", "40"}));
      CHECK(result.status == 0);
      CHECK(result.out == greedy_start + "\n");
    }
    for (const char* weights : {"nf4-dq", "nf4", "fp4", "bf16"}) {
      CAPTURE(weights);
      const auto result = pesc_program(write(model, {"--weights", weights, "--max-tokens", "5"}));
      CHECK(result.status == 0);
      CHECK(result.out.starts_with("Once upon a time"));
    }
    const auto wrong = pesc_program(write(model, {"--weights", "int3"}));
    CHECK(wrong.status == 2);
    CHECK(wrong.says("expected one of keep|nf4-dq|nf4|fp4|bf16|float"));
  }

  TEST_CASE("8-bit weights of a GGUF file write the same kept as decoded") {
    const support::temporary_folder folder;
    const std::string model = support::story_gguf(folder, {.q8_0 = true});
    const auto kept = pesc_program(write(model, {"--max-tokens", "60"}));
    CHECK(kept.status == 0);
    CHECK(kept.out.starts_with("Once upon a time, there was a little"));
    CHECK(kept.out == pesc_program(write(model, {"--max-tokens", "60", "--weights", "float"})).out);
  }

  TEST_CASE("a seed fixes the text, and threads do not change it") {
    const auto text = [](const char* seed, const char* threads) {
      return pesc_program(write(bundled("stories260K.bin"),
                                {"--temperature", "1", "--seed", seed, "--threads", threads}))
          .out;
    };
    CHECK(text("5", "1") == text("5", "3"));
    CHECK(text("5", "1") != text("6", "1"));
  }

  TEST_CASE("the prompt stands before its continuation") {
    const auto result =
        pesc_program(write(bundled("stories260K.bin"), {"--prompt", "Tom had a red", "--max-tokens", "8"}));
    CHECK(result.status == 0);
    CHECK(result.out.starts_with("Tom had a red"));
    CHECK(result.out.size() > 16);
  }

  TEST_CASE("a prompt that is not UTF-8 does no harm, and output is UTF-8 at the model's limit") {
    CHECK(pesc_program(write(bundled("stories260K.bin"), {"--prompt", "\xFF\xFE", "--max-tokens", "3"}))
              .status == 0);
    const auto full = pesc_program(
        {"generate", "--model", bundled("stories260K.bin"), "--temperature", "2", "--max-tokens", "5000"});
    CHECK(full.status == 0);
  }
}
