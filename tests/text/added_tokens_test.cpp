// SPDX-License-Identifier: Apache-2.0
#include "pesc/text/added_tokens.hpp"

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include <doctest/doctest.h>

#include "support/message_of.hpp"

using pesc::added_token;
using pesc::added_tokens;

namespace {

const auto any = [](const added_token&, std::size_t) { return true; };

/// The text with each token as its id in brackets.
template <class Accept>
std::string cut(const added_tokens& tokens, std::string_view text, Accept&& accept) {
  std::string out;
  tokens.cut(
      text, accept,
      [&](std::size_t begin, std::size_t end) {
        out += '"' + std::string{text.substr(begin, end - begin)} + '"';
      },
      [&](const added_token& t) { out += '[' + std::to_string(t.id) + ']'; });
  return out;
}
std::string cut(const added_tokens& tokens, std::string_view text) { return cut(tokens, text, any); }

}  // namespace

TEST_SUITE("text/added_tokens") {
  TEST_CASE("the first place and the longest token count") {
    const added_tokens tokens{{{"<s>", 1}, {"<", 2}, {"<s>x", 3}, {"abc", 4}, {"b", 5}, {"\xFF", 6}}, "t"};
    CHECK(cut(tokens, "") == "");
    CHECK(cut(tokens, "zz") == "\"zz\"");
    CHECK(cut(tokens, "<s><s>x<s") == "[1][3][2]\"s\"");
    CHECK(cut(tokens, "ab abc") == "\"a\"[5]\" \"[4]");
    CHECK(cut(tokens, "q\xFFq") == "\"q\"[6]\"q\"");
    CHECK(cut(added_tokens{}, "<s>") == "\"<s>\"");
    CHECK(cut(added_tokens{}, "") == "");
  }

  TEST_CASE("a token that is not accepted leaves the next shorter one") {
    const added_tokens tokens{{{"<s>", 1}, {"<", 2}}, "t"};
    const auto short_only = [](const added_token& t, std::size_t) { return t.text.size() == 1; };
    CHECK(cut(tokens, "<s>", short_only) == "[2]\"s>\"");
    CHECK(cut(tokens, "<<s>", [](const added_token&, std::size_t at) { return at == 1; }) == "\"<\"[1]");
  }

  TEST_CASE("white space goes with a token that takes it along") {
    const added_tokens tokens{{{"<l>", 1, false, true, false}, {"<r>", 2, false, false, true}, {"<n>", 3}},
                              "t"};
    CHECK(cut(tokens, "a \t<l> b") == "\"a\"[1]\" b\"");
    CHECK(cut(tokens, "a <r> \xC2\xA0 b") == "\"a \"[2]\"b\"");
    CHECK(cut(tokens, "a <n> b") == "\"a \"[3]\" b\"");
    CHECK(cut(tokens, "<r>  <l>") == "[2][1]");
    CHECK(cut(tokens, "  <l>") == "[1]");
    CHECK(cut(tokens, "<r>  ") == "[2]");
  }

  TEST_CASE("tokens are found by their text") {
    const added_tokens tokens{{{"b", 1}, {"a", 2}}, "t"};
    CHECK(tokens.find("a")->id == 2);
    CHECK(tokens.find("ab") == nullptr);
    CHECK(tokens.list().size() == 2);
    CHECK_FALSE(tokens.empty());
  }

  TEST_CASE("tokens without text and very long ones are refused") {
    const auto refusal = [](const std::string& text) {
      return support::message_of([&] { added_tokens({{text, 7}}, "t.json"); });
    };
    CHECK(refusal("") ==
          "t.json: added token \"\" of id 7 has the wrong length (found 0 bytes, expected 1 to 512)");
    CHECK(support::contains(refusal(std::string(513, 'a')), "found 513 bytes"));
    CHECK(refusal(std::string(512, 'a')) == "no error");
  }

  TEST_CASE("many tokens with a common start take no quadratic time") {
    std::vector<added_token> list;
    for (int i = 1; i <= 512; ++i) list.push_back({std::string(static_cast<std::size_t>(i), 'a') + "b", i});
    list.erase(list.end() - 1);
    const added_tokens tokens{std::move(list), "t"};
    const auto start = std::chrono::steady_clock::now();
    CHECK(cut(tokens, std::string(200'000, 'a')).size() == 200'002);
    CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(30));
  }
}
