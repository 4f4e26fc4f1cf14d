// SPDX-License-Identifier: Apache-2.0
#include "pesc/text/byte_alphabet.hpp"

#include <cstdint>
#include <set>
#include <string>

#include <doctest/doctest.h>

using pesc::byte_alphabet;

TEST_SUITE("text/byte_alphabet") {
  TEST_CASE("every byte has a printable code point of its own, and comes back") {
    std::set<char32_t> all;
    for (unsigned b = 0; b < 256; ++b) {
      const char32_t c = byte_alphabet::code_point(static_cast<std::uint8_t>(b));
      all.insert(c);
      CHECK(c > 0x20);
      CHECK(byte_alphabet::byte(c) == static_cast<std::uint8_t>(b));
    }
    CHECK(all.size() == 256);
    CHECK(*all.rbegin() == 0x143);
  }

  TEST_CASE("the known code points") {
    CHECK(byte_alphabet::code_point(' ') == U'\u0120');
    CHECK(byte_alphabet::code_point('\n') == U'\u010A');
    CHECK(byte_alphabet::code_point(0) == U'\u0100');
    CHECK(byte_alphabet::code_point('!') == U'!');
    CHECK(byte_alphabet::code_point(0x7F) == U'\u0121');
    CHECK(byte_alphabet::code_point(0xA0) == U'\u0142');
    CHECK(byte_alphabet::code_point(0xAD) == U'\u0143');
    CHECK(byte_alphabet::code_point(0xFF) == U'\u00FF');
  }

  TEST_CASE("pieces are read and written; characters outside the alphabet are told") {
    CHECK(byte_alphabet::read("\u0120the") == " the");
    CHECK(byte_alphabet::read("\u00C3\u00A9") == "\xC3\xA9");
    CHECK(byte_alphabet::read("") == "");
    CHECK(byte_alphabet::write(" \xC3\xA9\n") == "\u0120\u00C3\u00A9\u010A");
    for (const char* piece : {" ", "\n", "\u0144", "\u2581", "\x80", "a\xC3", "\u00AD"})
      CHECK_FALSE(byte_alphabet::read(piece).has_value());
    std::string all;
    for (int b = 0; b < 256; ++b) all += static_cast<char>(b);
    CHECK(byte_alphabet::read(byte_alphabet::write(all)) == all);
  }
}
