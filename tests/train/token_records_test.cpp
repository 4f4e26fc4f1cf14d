// SPDX-License-Identifier: Apache-2.0
#include "pesc/train/token_records.hpp"

#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "pesc/text/llama2c_tokenizer.hpp"
#include "support/data.hpp"

namespace {

/// One token per byte, but "\n\n" is one token of its own, so that a token can reach over the end of a
/// prompt.
std::vector<std::int32_t> encode(std::string_view text) {
  std::vector<std::int32_t> ids;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text.substr(i, 2) == "\n\n") {
      ids.push_back(1000);
      ++i;
    } else {
      ids.push_back(static_cast<unsigned char>(text[i]));
    }
  }
  return ids;
}

pesc::text_record record(std::string prompt, std::string target, bool ends = true) {
  pesc::text_record out;
  out.prompt = std::move(prompt);
  out.target = std::move(target);
  out.ends = ends;
  return out;
}

std::vector<std::int32_t> ids_of(const pesc::token_record& tokens) {
  return {tokens.ids.begin(), tokens.ids.end()};
}

using ids = std::vector<std::int32_t>;

}  // namespace

TEST_SUITE("train/token_records") {
  TEST_CASE("begin token, prompt, target and end token follow one another") {
    pesc::token_summary summary;
    const auto records = pesc::tokenize_records(
        {record("ab\n", "cd"), record("", "xy"), record("", "z", false)}, encode, {1, 2, 100}, summary);
    REQUIRE(records.size() == 3);
    CHECK(ids_of(records[0]) == ids{1, 'a', 'b', '\n', 'c', 'd', 2});
    CHECK(records[0].target_begin == 4);
    CHECK(records[0].targets() == 3);
    CHECK(ids_of(records[1]) == ids{1, 'x', 'y', 2});
    CHECK(records[1].target_begin == 1);
    CHECK(ids_of(records[2]) == ids{1, 'z'});
    CHECK(summary.records == 3);
    CHECK(summary.tokens == 13);
    CHECK(summary.target_tokens == 3 + 3 + 1);
    CHECK(summary.cut == 0);
  }

  TEST_CASE("without a begin token the first token is no target, since nothing predicts it") {
    pesc::token_summary summary;
    const auto records = pesc::tokenize_records({record("", "xyz")}, encode, {-1, -1, 100}, summary);
    CHECK(ids_of(records[0]) == ids{'x', 'y', 'z'});
    CHECK(records[0].target_begin == 1);
  }

  TEST_CASE("a token that reaches over the end of the prompt is a target") {
    pesc::token_summary summary;
    const auto records = pesc::tokenize_records({record("a\n", "\nb")}, encode, {1, 2, 100}, summary);
    CHECK(ids_of(records[0]) == ids{1, 'a', 1000, 'b', 2});
    CHECK(records[0].target_begin == 2);
  }

  TEST_CASE("records are cut at the length and left out when no target is left") {
    pesc::token_summary summary;
    const auto records = pesc::tokenize_records(
        {record("abc\n", "defg"), record("abcdefg\n", "h"), record("a\n", "b")}, encode, {1, 2, 7}, summary);
    REQUIRE(records.size() == 2);
    CHECK(ids_of(records[0]) == ids{1, 'a', 'b', 'c', '\n', 'd', 'e'});
    CHECK(records[0].targets() == 2);
    CHECK(summary.cut == 2);
    CHECK(summary.no_target == 1);
    const std::string text = pesc::describe("f.jsonl", {}, summary);
    CHECK(text == "f.jsonl: 2 records, 12 tokens, 4 of them targets; 2 cut; 1 too long for any target");
  }

  TEST_CASE("data without a single target token within the length is refused") {
    pesc::token_summary summary;
    CHECK_THROWS_WITH_AS(
        static_cast<void>(pesc::tokenize_records({record("abcdefg\n", "h")}, encode, {1, 2, 7}, summary)),
        "none of 1 records has a target token within 7 tokens. Allow longer records", pesc::format_error);
    CHECK_THROWS_AS(static_cast<void>(pesc::tokenize_records({record("", "h")}, encode, {1, 2, 1}, summary)),
                    pesc::shape_error);
  }

  TEST_CASE("a record needs a token to predict and one to predict it from") {
    pesc::token_records records;
    const ids one{1};
    const ids three{1, 2, 3};
    CHECK_THROWS_AS(records.add(one, 1), pesc::shape_error);
    CHECK_THROWS_AS(records.add(three, 0), pesc::shape_error);
    CHECK_THROWS_AS(records.add(three, 3), pesc::shape_error);
    records.add(three, 2);
    CHECK(records.size() == 1);
    CHECK(records.tokens() == 3);
  }

  TEST_CASE("the carried stories have the number of tokens that is known of them") {
    const auto tokenizer = pesc::llama2c_tokenizer::load(support::example_data("tok512.bin").string(), 512);
    const auto encode_text = [&](std::string_view text) { return tokenizer.encode(text, {.bos = false}); };
    pesc::record_summary text;
    pesc::token_summary tokens;
    const auto stories =
        pesc::read_records(support::example_data("tinystories_sample_5.txt").string(), {}, text);
    const auto records = pesc::tokenize_records(stories, encode_text, {1, 1, 512}, tokens);
    CHECK(tokens.tokens == 1804 + 5 + 5);
    CHECK(tokens.target_tokens == 1804 + 5);
    CHECK(tokens.cut == 0);
    for (pesc::index_t i = 0; i < records.size(); ++i) {
      CHECK(records[i].ids.front() == 1);
      CHECK(records[i].ids.back() == 1);
    }

    const auto problems = pesc::read_records(support::example_data("gsm8k_test.jsonl").string(), {}, text);
    const auto pairs = pesc::tokenize_records(problems, encode_text, {1, 1, 4096}, tokens);
    for (pesc::index_t i = 0; i < pairs.size(); ++i) {
      const pesc::token_record pair = pairs[i];
      const auto target = pair.ids.subspan(static_cast<std::size_t>(pair.target_begin));
      CHECK(tokenizer.decode(target) == problems[static_cast<std::size_t>(i)].target);
    }
  }
}
