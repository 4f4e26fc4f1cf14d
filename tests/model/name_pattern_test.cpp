// SPDX-License-Identifier: Apache-2.0
#include "pesc/model/name_pattern.hpp"

#include <string>

#include <doctest/doctest.h>

#include "support/message_of.hpp"

namespace {

bool matches(const std::string& pattern, const std::string& path) {
  return pesc::name_pattern::parse(pattern, "a").matches(path);
}

std::string refusal(const std::string& pattern) {
  return support::message_of([&] { static_cast<void>(pesc::name_pattern::parse(pattern, "a: \"key\"")); });
}

}  // namespace

TEST_SUITE("model/name_pattern") {
  const std::string path = "model.layers.10.self_attn.q_proj";

  TEST_CASE("names stand for whole ends of a path behind a dot") {
    CHECK(matches("q_proj", path));
    CHECK(matches("self_attn.q_proj", path));
    CHECK(matches(path, path));
    CHECK_FALSE(matches("proj", path));
    CHECK_FALSE(matches("q_pro", path));
    CHECK_FALSE(matches("self_attn", path));
    CHECK_FALSE(matches("0.self_attn.q_proj", path));
    CHECK_FALSE(matches("model.layers.1.self_attn.q_proj", path));
    CHECK_FALSE(matches("q_proj", ""));
  }

  TEST_CASE("expressions are read as Python reads them") {
    CHECK(matches("layers\\.\\d+\\.self_attn\\.(q|k)_proj", path));
    CHECK_FALSE(matches("layers\\.\\d\\.self_attn\\.(q|k)_proj", path));
    CHECK(matches(".*q_proj", path));
    CHECK(matches("^model.*", path));
    CHECK_FALSE(matches("^layers.*", path));
    CHECK(matches("layers.*", path));
    CHECK(matches("layers.[0-9]+.(?:mlp|self_attn).\\w+", path));
    CHECK(matches("layers.1[^1-9].self_attn.[kq]_proj$", path));
    CHECK_FALSE(matches("layers.1[1-9].self_attn.[kq]_proj", path));
    CHECK(matches("q_?proj|o_proj", path));
    CHECK(matches("q_+?proj", path));
    CHECK(matches("()q_proj", path));
    CHECK_FALSE(matches("q\\_pro\\.j", path));
    CHECK(matches("[]]", "a.]"));
    CHECK(matches("[a-]+", "a-a"));
    CHECK(matches("", "model."));
  }

  TEST_CASE("no pattern makes matching slow") {
    const std::string long_path(200, 'a');
    CHECK_FALSE(matches("((a*)*)*b", long_path));
    CHECK_FALSE(matches("(a|a)*(a|aa)+b", long_path));
  }

  TEST_CASE("what is not read is refused by name") {
    using support::contains;
    CHECK(contains(refusal("(?=a)"), "a: \"key\": pattern \"(?=a)\" holds \"(?\", which is not read"));
    CHECK(contains(refusal("a{2}"), "repeats in a way that is not read"));
    CHECK(contains(refusal("a**"), "repeats in a way"));
    CHECK(contains(refusal("\\b"), "holds a backslash and a letter"));
    CHECK(contains(refusal("a\\"), "ends with a backslash"));
    CHECK(contains(refusal("(a"), "bracket that is not closed"));
    CHECK(contains(refusal("[a"), "bracket that is not closed"));
    CHECK(contains(refusal("a)"), "bracket that was not opened"));
    CHECK(contains(refusal("[b-a]"), "a range that is not read"));
    CHECK(contains(refusal(std::string(513, 'a')), "a pattern of 513 characters, expected at most 512"));
    CHECK(contains(refusal(std::string(100, '(')), "nests too deeply"));
  }

  TEST_CASE("patterns are compared by their text") {
    CHECK(pesc::name_pattern::parse("a", "") == pesc::name_pattern::parse("a", ""));
    CHECK_FALSE(pesc::name_pattern::parse("a", "") == pesc::name_pattern::parse("b", ""));
  }
}
