// SPDX-License-Identifier: Apache-2.0
#include "pesc/text/utf8.hpp"

#include <string>

#include <doctest/doctest.h>

namespace {

/// UTF-8 of a code point, written from the definition.
std::string encoded(unsigned code) {
  const auto byte = [](unsigned b) { return static_cast<char>(static_cast<unsigned char>(b)); };
  if (code < 0x80) return {byte(code)};
  if (code < 0x800) return {byte(0xC0 | code >> 6), byte(0x80 | (code & 63))};
  if (code < 0x10000)
    return {byte(0xE0 | code >> 12), byte(0x80 | (code >> 6 & 63)), byte(0x80 | (code & 63))};
  return {byte(0xF0 | code >> 18), byte(0x80 | (code >> 12 & 63)), byte(0x80 | (code >> 6 & 63)),
          byte(0x80 | (code & 63))};
}

const std::string replacement = "\xEF\xBF\xBD";

}  // namespace

TEST_SUITE("text/utf8") {
  TEST_CASE("code points are written and read back") {
    for (const char32_t c : {U'\0', U'a', U'\x7F', U'\x80', U'\u07FF', U'\u0800', U'\u2581', U'\uD7FF',
                             U'\uE000', U'\uFFFF', U'\U00010000', U'\U0010FFFF'}) {
      std::string out = "x";
      pesc::append_utf8(out, c);
      const auto step = pesc::utf8_first(std::string_view{out}.substr(1));
      CHECK(step.what == pesc::utf8_step::kind::character);
      CHECK(step.length == out.size() - 1);
      CHECK(pesc::code_point_of(std::string_view{out}.substr(1)) == c);
    }
    CHECK(pesc::code_point_of("\xE2\x96\x81") == 0x2581);
  }

  TEST_CASE("every code point is valid but the surrogates") {
    bool good = true;
    for (unsigned code = 0; code <= 0x10FFFF; ++code) {
      const bool surrogate = code >= 0xD800 && code <= 0xDFFF;
      const std::string text = encoded(code);
      good = good && pesc::is_valid_utf8(text) == !surrogate;
      if (!surrogate && text.size() > 1)
        good = good &&
               pesc::utf8_first(text.substr(0, text.size() - 1)).what == pesc::utf8_step::kind::unfinished;
    }
    CHECK(good);
    CHECK_FALSE(pesc::is_valid_utf8(encoded(0x110000)));
  }

  TEST_CASE("what is not UTF-8 is found where it begins") {
    const std::string bad[] = {"\x80",
                               "\xBF",
                               "\xC0\x80",
                               "\xC1\xBF",
                               "\xE0\x80\x80",
                               "\xE0\x9F\xBF",
                               "\xF0\x80\x80\x80",
                               "\xF0\x8F\xBF\xBF",
                               "\xF5\x80\x80\x80",
                               "\xFF",
                               "\xC3",
                               "\xC3(",
                               "\xE2\x82",
                               "\xE2\x82(",
                               "\xF0\x9F\x98",
                               "\xED\xA0\x80"};
    for (const std::string& text : bad) {
      CAPTURE(text);
      CHECK(pesc::find_invalid_utf8("aé" + text + "z") == 3);
    }
    CHECK(pesc::find_invalid_utf8("aé") == 3);
    CHECK(pesc::is_valid_utf8(""));
  }

  TEST_CASE("a stream gives the same text however it is cut") {
    const std::string text = "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80z\xFF\xC3(\xE2\x82";
    const std::string expected = "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80z" + replacement + replacement + "(" +
                                 replacement + replacement;
    for (std::size_t piece = 1; piece <= text.size(); ++piece) {
      pesc::utf8_stream stream;
      std::string out;
      for (std::size_t i = 0; i < text.size(); i += piece) {
        const std::string part = stream.push(std::string_view{text}.substr(i, piece));
        CHECK(pesc::is_valid_utf8(part));
        out += part;
      }
      out += stream.finish();
      CHECK(out == expected);
      CHECK(stream.finish().empty());
    }
  }

  TEST_CASE("a stream holds back only what may still become a character") {
    pesc::utf8_stream stream;
    CHECK(stream.push("a\xE2\x82") == "a");
    CHECK(stream.push("\xAC") == "\xE2\x82\xAC");
    CHECK(stream.push("\xE2") == "");
    CHECK(stream.push("(") == replacement + "(");
    CHECK(stream.push("\xF5") == replacement);
    CHECK(stream.finish().empty());
  }
}
