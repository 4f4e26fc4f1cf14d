// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include "tool/program.hpp"

using support::pesc_program;

TEST_SUITE("tool/help") {
  TEST_CASE("every command has help with an example") {
    for (const char* command : {"craft", "tune", "evaluate", "generate", "convert", "inspect", "demo"}) {
      CAPTURE(command);
      const auto result = pesc_program({command, "--help"});
      CHECK(result.status == 0);
      CHECK(result.err.empty());
      CHECK(result.out.find(std::string{"pesc "} + command + " ") != std::string::npos);
      CHECK(result.out.find("Example") != std::string::npos);
    }
    CHECK(pesc_program({"--help"}).status == 0);
  }

  TEST_CASE("help tells defaults and ranges") {
    const std::string help = pesc_program({"craft", "--help"}).out;
    for (const char* text : {"--experts INT:0 to 65536=8", "--top-k INT:1 to 16=2",
                             "--rank INT:1 to 65536=16", "nf4-dq|nf4|fp4|bf16|float=nf4-dq"})
      CHECK(help.find(text) != std::string::npos);
  }

  TEST_CASE("the version tells what the program was made of") {
    const auto result = pesc_program({"--version"});
    CHECK(result.status == 0);
    for (const char* text : {"pesc 0.", "compiler: ", "instruction sets: scalar", "Eigen: ", "CUDA: "})
      CHECK(result.out.find(text) != std::string::npos);
  }
}
