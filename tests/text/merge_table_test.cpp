// SPDX-License-Identifier: Apache-2.0
#include "pesc/text/merge_table.hpp"

#include <vector>

#include <doctest/doctest.h>

using pesc::merge_table;
using pesc::piece_kind;

TEST_SUITE("text/merge_table") {
  TEST_CASE("every split of a piece into two pieces joins to it, ranked by its score") {
    pesc::vocabulary words;
    std::vector<float> scores;
    const auto add = [&](const char* text, float score, piece_kind kind = piece_kind::text) {
      words.add(text, kind);
      scores.push_back(score);
      return words.size() - 1;
    };
    const auto a = add("a", 0), b = add("b", 0), ab = add("ab", -2), ba = add("ba", -1), aba = add("aba", -2);
    add("ab", -9);
    add("bb", -1, piece_kind::control);
    const merge_table table = merge_table::from_scores(words, scores);
    CHECK(table.size() == 4);
    REQUIRE(table.find(a, b) != nullptr);
    CHECK(table.find(a, b)->piece == ab);
    CHECK(table.find(b, a)->piece == ba);
    CHECK(table.find(ab, a)->piece == aba);
    CHECK(table.find(a, ba)->piece == aba);
    CHECK(table.find(b, b) == nullptr);
    CHECK(table.find(a, a) == nullptr);
    CHECK(table.find(-1, a) == nullptr);
    CHECK(table.find(b, a)->rank < table.find(a, b)->rank);
    CHECK(table.find(a, b)->rank == table.find(ab, a)->rank);
  }

  TEST_CASE("pieces meet between characters only") {
    pesc::vocabulary words;
    words.add("\xC3", piece_kind::text);
    words.add("\xA9", piece_kind::text);
    words.add("\xC3\xA9", piece_kind::text);
    CHECK(merge_table::from_scores(words, std::vector<float>(3)).size() == 0);
  }

  TEST_CASE("the first entry of a pair stays, and an empty table finds nothing") {
    merge_table table;
    CHECK(table.find(1, 2) == nullptr);
    table.add(1, 2, {5, 7});
    table.add(1, 2, {1, 8});
    table.add(2, 1, {0, 9});
    table.finish();
    CHECK(table.find(1, 2)->piece == 7);
    CHECK(table.find(2, 1)->piece == 9);
    CHECK(table.size() == 2);
  }
}
