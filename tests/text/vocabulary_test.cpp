// SPDX-License-Identifier: Apache-2.0
#include "pesc/text/vocabulary.hpp"

#include <string>

#include <doctest/doctest.h>

using pesc::piece_kind;

TEST_SUITE("text/vocabulary") {
  TEST_CASE("pieces are found by text and by id, also in a copy") {
    pesc::vocabulary words;
    CHECK(words.find("a") == -1);
    words.add("<unk>", piece_kind::unknown);
    words.add("<s>", piece_kind::control);
    words.add("<0x41>", piece_kind::byte);
    for (int i = 0; i < 5000; ++i) words.add("w" + std::to_string(i), piece_kind::text);
    words.add("w7", piece_kind::text);
    words.add("", piece_kind::text);
    const pesc::vocabulary copy = words;
    words = pesc::vocabulary{};
    CHECK(copy.size() == 5005);
    for (int i = 0; i < 5000; ++i) CHECK(copy.find("w" + std::to_string(i)) == i + 3);
    CHECK(copy.piece(3) == "w0");
    CHECK(copy.piece(0) == "<unk>");
    CHECK(copy.piece(5004).empty());
    CHECK(copy.find("") == 5004);
    CHECK(copy.find("w5000") == -1);
    CHECK(copy.kind(2) == piece_kind::byte);
  }

  TEST_CASE("marks and bytes are never found as text") {
    pesc::vocabulary words;
    words.add("<s>", piece_kind::control);
    words.add("<0x41>", piece_kind::byte);
    words.add("x", piece_kind::text);
    CHECK(words.find("<s>") == -1);
    CHECK(words.find("<0x41>") == -1);
    CHECK(words.find("x") == 2);
  }

  TEST_CASE("byte pieces are two hexadecimal digits and nothing else") {
    CHECK(pesc::byte_of_piece("<0x0A>") == 10);
    CHECK(pesc::byte_of_piece("<0xfF>") == 255);
    for (const char* other :
         {"<0x-1>", "<0x+1>", "<0x 1>", "<0x1>", "<0x001>", "<0xG0>", "0x41", "<0X41>", "<0x41", ""})
      CHECK_FALSE(pesc::byte_of_piece(other).has_value());
  }
}
