// SPDX-License-Identifier: Apache-2.0
#include "pesc/text/raw_vocabulary.hpp"

#include <string>

#include <doctest/doctest.h>

#include "support/message_of.hpp"

using pesc::piece_kind;
using pesc::piece_spelling;
using pesc::raw_vocabulary;
using support::message_of;

TEST_SUITE("text/raw_vocabulary") {
  TEST_CASE("spaces are written as U+2581") {
    raw_vocabulary raw{"f", piece_spelling::spaced};
    raw.add("\u2581a\u2581", piece_kind::text);
    raw.add("a b", piece_kind::text);
    raw.add("\u2581\u2581", piece_kind::literal);
    raw.add("<0x0A>", piece_kind::byte);
    raw.add("<s>", piece_kind::control);
    CHECK(raw.find("a b") == 1);
    CHECK(raw.find("<s>") == 4);
    CHECK(raw.find("x") == -1);
    const pesc::vocabulary text = raw.to_text();
    CHECK(text.piece(0) == " a ");
    CHECK(text.find(" a ") == 0);
    CHECK(text.kind(1) == piece_kind::literal);
    CHECK(text.piece(2) == "  ");
    CHECK(text.find("  ") == -1);
    CHECK(text.kind(3) == piece_kind::byte);
    CHECK(text.kind(4) == piece_kind::control);
  }

  TEST_CASE("byte-level pieces become bytes; what is none stays as it is written") {
    raw_vocabulary raw{"f", piece_spelling::byte_level};
    raw.add("\u0120\u00C3\u00A9", piece_kind::text);
    raw.add("\u4E2D", piece_kind::text);
    raw.add("\u0120", piece_kind::literal);
    const pesc::vocabulary text = raw.to_text();
    CHECK(text.piece(0) == " \xC3\xA9");
    CHECK(text.kind(0) == piece_kind::text);
    CHECK(text.piece(1) == "\u4E2D");
    CHECK(text.kind(1) == piece_kind::literal);
    CHECK(text.piece(2) == "\u0120");
  }

  TEST_CASE("merges are found by their text, ranked in their order") {
    raw_vocabulary raw{"f", piece_spelling::byte_level};
    for (const char* piece : {"a", "b", "ab", "aba"}) raw.add(piece, piece_kind::text);
    raw.add_written_merge("a b");
    raw.add_merge("ab", "a");
    const pesc::merge_table merges = raw.take_merges();
    CHECK(merges.find(0, 1)->piece == 2);
    CHECK(merges.find(2, 0)->piece == 3);
    CHECK(merges.find(0, 1)->rank < merges.find(2, 0)->rank);
  }

  TEST_CASE("no pair joins to a mark") {
    raw_vocabulary raw{"f", piece_spelling::byte_level};
    for (const char* piece : {"<", ">"}) raw.add(piece, piece_kind::text);
    raw.add("<>", piece_kind::control);
    raw.add_merge("<", ">");
    CHECK(raw.take_merges().find(0, 1) == nullptr);
  }

  TEST_CASE("errors say what was found, what was expected, and where") {
    raw_vocabulary raw{"f", piece_spelling::byte_level};
    for (const char* piece : {"a", "b", "ab"}) raw.add(piece, piece_kind::text);
    CHECK(message_of([&] { raw.add_merge("b", "a"); }) ==
          "f: merge of an unknown piece (found \"ba\", expected a piece of the vocabulary) at merge 0. "
          "The file may be cut short or put together from two models.");
    raw.add_merge("a", "b");
    CHECK(support::contains(message_of([&] { raw.add_merge("x", "b"); }), "found \"x\""));
    CHECK(support::contains(message_of([&] { raw.add_merge("x", "b"); }), "at merge 1."));
    CHECK(support::contains(message_of([&] { raw.add_merge("x", "b", "line 9"); }), "at line 9."));
    for (const char* pair : {"", "ab", " b", "a ", "a b c", "a  b"})
      CHECK(support::contains(message_of([&] { raw.add_written_merge(pair); }),
                              "expected two pieces with one space between them"));
    CHECK(message_of([&] { raw.add("<0x-1>", piece_kind::byte); }) ==
          "f: wrong byte piece (found \"<0x-1>\", expected <0x00> to <0xFF>) at piece 3");
  }
}
