// SPDX-License-Identifier: Apache-2.0
#include "pesc/io/quoted.hpp"

#include <string>

#include <doctest/doctest.h>

TEST_SUITE("io/quoted") {
  TEST_CASE("names are one line, whatever they hold") {
    CHECK(pesc::in_quotes("w") == "\"w\"");
    CHECK(pesc::in_quotes("a\"b\\c") == R"("a\"b\\c")");
    CHECK(pesc::in_quotes("a\nb\x01\x7F\x1B[31m") == R"("a\nb\x01\x7f\x1b[31m")");
    CHECK(pesc::in_quotes(std::string_view("a\0b", 3)) == R"("a\x00b")");
    CHECK(pesc::in_quotes("é") == "\"é\"");
  }

  TEST_CASE("long names are cut, but not inside a character") {
    CHECK(pesc::in_quotes(std::string(80, 'x')) == '"' + std::string(80, 'x') + '"');
    CHECK(pesc::in_quotes(std::string(81, 'x')) == '"' + std::string(80, 'x') + "...\"");
    CHECK(pesc::in_quotes(std::string(79, 'x') + "éé") == '"' + std::string(79, 'x') + "...\"");
    CHECK(pesc::one_line("abcdef", 3) == "abc...");
  }
}
