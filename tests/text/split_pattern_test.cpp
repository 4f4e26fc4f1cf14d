// SPDX-License-Identifier: Apache-2.0
#include "pesc/text/split_pattern.hpp"

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <doctest/doctest.h>

using pesc::split_pattern;
using pieces = std::vector<std::string>;

namespace {

pieces split(split_pattern pattern, std::string_view text) {
  pieces out;
  pesc::for_each_split(pattern, text, [&](std::string_view piece) { out.emplace_back(piece); });
  return out;
}
pieces gpt2(std::string_view text) { return split(split_pattern::gpt2, text); }
pieces smollm(std::string_view text) { return split(split_pattern::smollm, text); }
pieces llama(std::string_view text) { return split(split_pattern::llama_bpe, text); }

}  // namespace

TEST_SUITE("text/split_pattern") {
  TEST_CASE("gpt-2: words, numbers and signs take one space before them") {
    CHECK(gpt2("") == pieces{});
    CHECK(gpt2("Hello world") == pieces{"Hello", " world"});
    CHECK(gpt2("abc123 45,  6") == pieces{"abc", "123", " 45", ",", " ", " 6"});
    CHECK(gpt2("x=(y)!") == pieces{"x", "=(", "y", ")!"});
    CHECK(gpt2("a   b") == pieces{"a", "  ", " b"});
    CHECK(gpt2("a  ") == pieces{"a", "  "});
    CHECK(gpt2("a\n\nb") == pieces{"a", "\n", "\n", "b"});
    CHECK(gpt2("a\t b") == pieces{"a", "\t", " b"});
    CHECK(gpt2(" \tb") == pieces{" ", "\t", "b"});
    CHECK(gpt2("\nb") == pieces{"\n", "b"});
  }

  TEST_CASE("gpt-2: contractions are lower case and do not take a space") {
    CHECK(gpt2("I'm you're it's'd") == pieces{"I", "'m", " you", "'re", " it", "'s", "'d"});
    CHECK(gpt2("I'M") == pieces{"I", "'", "M"});
    CHECK(gpt2("a 's") == pieces{"a", " '", "s"});
    CHECK(gpt2("'tx") == pieces{"'t", "x"});
    CHECK(gpt2("''s") == pieces{"''", "s"});
    CHECK(gpt2("'l") == pieces{"'", "l"});
    CHECK(gpt2("'") == pieces{"'"});
  }

  TEST_CASE("gpt-2: classes are those of Unicode") {
    CHECK(gpt2("naïve é中文한") == pieces{"naïve", " é中文한"});
    CHECK(gpt2("e\u0301x") == pieces{"e", "\u0301", "x"});
    CHECK(gpt2("a\u00A0b") == pieces{"a", "\u00A0", "b"});
    CHECK(gpt2("a\u3000\u3000b") == pieces{"a", "\u3000", "\u3000", "b"});
    CHECK(gpt2("a\u200Bb") == pieces{"a", "\u200B", "b"});
    CHECK(gpt2("٣४²Ⅷ") == pieces{"٣४²Ⅷ"});
    CHECK(gpt2("\U0001F600\u200D\U0001F600 a") == pieces{"\U0001F600\u200D\U0001F600", " a"});
    CHECK(gpt2("a\xC3 \x80z") == pieces{"a", "\xC3", " \x80", "z"});
  }

  TEST_CASE("smollm: every number is alone, a space before it too") {
    CHECK(smollm("12345") == pieces{"1", "2", "3", "4", "5"});
    CHECK(smollm("a1b2") == pieces{"a", "1", "b", "2"});
    CHECK(smollm("a 1  b") == pieces{"a", " ", "1", " ", " b"});
    CHECK(smollm("x   7") == pieces{"x", "   ", "7"});
    CHECK(smollm("it's ٣½!") == pieces{"it", "'s", " ", "٣", "½", "!"});
    CHECK(smollm("'1s") == pieces{"'", "1", "s"});
    CHECK(smollm("") == pieces{});
  }

  TEST_CASE("llama-bpe: contractions in any case, words with one sign before, numbers by three") {
    CHECK(llama("I'M you'LL It's") == pieces{"I", "'M", " you", "'LL", " It", "'s"});
    CHECK(llama("'\u017Fx") == pieces{"'\u017F", "x"});
    CHECK(llama("(word) _x\tabc") == pieces{"(word", ")", " _", "x", "\tabc"});
    CHECK(llama("1234567") == pieces{"123", "456", "7"});
    CHECK(llama("٣٣٣٣") == pieces{"٣٣٣", "٣"});
    CHECK(llama("a 12") == pieces{"a", " ", "12"});
    CHECK(llama("é\u0301a") == pieces{"é", "\u0301a"});
    CHECK(llama("a\u00A0b\u200Bc") == pieces{"a", "\u00A0b", "\u200Bc"});
    CHECK(llama("'x") == pieces{"'x"});
  }

  TEST_CASE("llama-bpe: lines end where they end") {
    CHECK(llama("a;\n\nb") == pieces{"a", ";\n\n", "b"});
    CHECK(llama("a  \n  \r\n   b") == pieces{"a", "  \n  \r\n", "  ", " b"});
    CHECK(llama("a \n") == pieces{"a", " \n"});
    CHECK(llama("\n\nb") == pieces{"\n\n", "b"});
    CHECK(llama("\rb") == pieces{"\r", "b"});
    CHECK(llama("  !?\n") == pieces{" ", " !?\n"});
    CHECK(llama("a   ") == pieces{"a", "   "});
    CHECK(llama("\t\t!") == pieces{"\t", "\t", "!"});
  }

  TEST_CASE("spaces: before every space") {
    CHECK(split(split_pattern::spaces, " a b  c") == pieces{" a", " b", " ", " c"});
    CHECK(split(split_pattern::spaces, "ab") == pieces{"ab"});
    CHECK(split(split_pattern::none, "a b") == pieces{"a b"});
    CHECK(split(split_pattern::none, "") == pieces{});
  }

  TEST_CASE("the pieces of any bytes are the bytes, and no piece is empty") {
    std::uint32_t state = 11;
    const auto random = [&](std::uint32_t n) {
      state = state * 1664525u + 1013904223u;
      return (state >> 8) % n;
    };
    const char* parts[] = {"a",      "Z",      " ",      "\n",     "\r",   "'",    "s",  "7",
                           "\u00A0", "\u0301", "\u3000", "\u4E2D", "\xC3", "\x80", "!",  "'LL",
                           "\u0663", "\u200B", "\t",     "\xF0",   "'ve",  "\xFF", "  ", "_"};
    for (int round = 0; round < 3000; ++round) {
      std::string text;
      for (std::uint32_t n = random(24); n > 0; --n) text += parts[random(24)];
      for (const auto pattern : {split_pattern::gpt2, split_pattern::smollm, split_pattern::llama_bpe,
                                 split_pattern::spaces, split_pattern::none}) {
        std::string joined;
        bool empty = false;
        for (const std::string& piece : split(pattern, text)) {
          joined += piece;
          empty = empty || piece.empty();
        }
        CAPTURE(text);
        CHECK(joined == text);
        CHECK_FALSE(empty);
      }
    }
  }

  TEST_CASE("long runs of every kind take linear time") {
    const auto start = std::chrono::steady_clock::now();
    for (const char* unit : {" ", "\n", "a", "1", "!", " \n", "a ", "\u3000", "'s", "\xFF", "\n "}) {
      std::string text;
      while (text.size() < 1'000'000) text += unit;
      for (const auto pattern :
           {split_pattern::gpt2, split_pattern::smollm, split_pattern::llama_bpe, split_pattern::spaces}) {
        std::size_t size = 0;
        pesc::for_each_split(pattern, text, [&](std::string_view piece) { size += piece.size(); });
        CHECK(size == text.size());
      }
    }
    CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(30));
  }

  TEST_CASE("patterns are known by name and by their expression") {
    CHECK(pesc::split_pattern_named("gpt-2") == split_pattern::gpt2);
    CHECK(pesc::split_pattern_named("smollm") == split_pattern::smollm);
    CHECK(pesc::split_pattern_named("llama-bpe") == split_pattern::llama_bpe);
    CHECK_FALSE(pesc::split_pattern_named("qwen2").has_value());
    CHECK_FALSE(pesc::split_pattern_named("").has_value());
    CHECK(pesc::split_pattern_names() == "gpt-2, smollm, llama-bpe");
    CHECK(pesc::split_pattern_of_expression(
              "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+") ==
          split_pattern::gpt2);
    CHECK_FALSE(pesc::split_pattern_of_expression("\\s+").has_value());
    CHECK_FALSE(pesc::split_pattern_of_expression("").has_value());
  }
}
