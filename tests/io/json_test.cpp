// SPDX-License-Identifier: Apache-2.0
#include "pesc/io/json.hpp"

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "support/message_of.hpp"
#include "support/temporary_folder.hpp"

using pesc::json;
using pesc::json_fields;
using pesc::parse_json;
using support::contains;
using support::message_of;

TEST_SUITE("io/json") {
  TEST_CASE("texts keep their values, types and order of keys") {
    const json value =
        parse_json(R"({"b": [1, -2, 18446744073709551615, 1.5, true, null], "a": {"x": "é\n"}})", "f");
    REQUIRE(value.is_object());
    CHECK(value.members()[0].key == "b");
    CHECK(value.members()[1].key == "a");
    const auto& list = value.find("b")->items();
    CHECK(list[0].to_int() == 1);
    CHECK(list[1].to_int() == -2);
    CHECK_FALSE(list[2].to_int().has_value());
    CHECK(list[2].to_uint() == 18446744073709551615u);
    CHECK_FALSE(list[3].to_int().has_value());
    CHECK(list[3].to_double() == 1.5);
    CHECK(list[4].to_bool() == true);
    CHECK(list[5].is_null());
    CHECK(*value.find("a")->find("x")->if_string() == "é\n");
    CHECK(value.find("c") == nullptr);
    CHECK(list[0].find("c") == nullptr);
    CHECK(list[0].items().empty());
    CHECK(list[0].members().empty());
  }

  TEST_CASE("malformed texts are refused with the byte and the reason") {
    struct row {
      std::string text, expected;
    };
    const row rows[] = {
        {"", "f.json: byte 0: the text is empty"},
        {"[1, ", "f.json: byte 4: the JSON text ends too early"},
        {R"({"a" 1})", "f.json: byte 5:"},
        {R"({"a": 1, "b": 2, "a": 3})", R"(f.json: byte 20: key "a" appears twice in one object)"},
        {"[NaN]", "NaN is not a JSON number"},
        {"[1, Infinity]", "Infinity is not a JSON number"},
        {"[-Infinity]", "-Infinity is not a JSON number"},
        {"[1e400]", "number overflow"},
        {"[\"\xFF\"]", "ill-formed UTF-8"},
        {"[\"\xED\xA0\x80\"]", "ill-formed UTF-8"},
        {R"(["\ud800"])", "surrogate"},
        {R"(["\x"])", "f.json: byte 3:"},
        {"[\"a\nb\"]", "control character"},
        {"[01]", "f.json: byte 2:"},
        {"[1,]", "f.json: byte 3:"},
        {"{} x", "f.json: byte 3:"},
        {"nul", "f.json: byte 3:"},
        {std::string("[1]\0", 4), "f.json: byte 3:"},
        {"// comment\n1", "f.json: byte 0:"},
        {std::string(65, '[') + std::string(65, ']'), "nested deeper than 64 levels"},
        {"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"},
        {"<!DOCTYPE html>", "web page"},
    };
    for (const row& r : rows) {
      CAPTURE(r.text);
      const std::string message = message_of([&] { static_cast<void>(parse_json(r.text, "f.json")); });
      CAPTURE(message);
      CHECK(contains(message, r.expected));
      CHECK(message.starts_with("f.json: "));
      CHECK(message.find('\n') == std::string::npos);
    }
  }

  TEST_CASE("a message stays short however long the offending text is") {
    const std::string text = "[\"" + std::string(100'000, 'x') + "\xFF\"]";
    CHECK(message_of([&] { static_cast<void>(parse_json(text, "f")); }).size() < 300);
    const std::string digits = "[" + std::string(100'000, '9') + "e999]";
    CHECK(message_of([&] { static_cast<void>(parse_json(digits, "f")); }).size() < 300);
    const std::string key(100'000, 'k');
    const std::string twice = "{\"" + key + "\":1,\"" + key + "\":2}";
    CHECK(message_of([&] { static_cast<void>(parse_json(twice, "f")); }).size() < 300);
  }

  TEST_CASE("limits on size and number of values hold") {
    CHECK(contains(message_of([] {
                     static_cast<void>(parse_json("[1,2,3]", "f", {64, 6, 100}));
                   }),
                   "7 bytes of JSON, at most 6"));
    CHECK(contains(message_of([] {
                     static_cast<void>(parse_json("[1,2,3]", "f", {64, 100, 3}));
                   }),
                   "more than 3 JSON values"));
    CHECK(parse_json("[1,2,3]", "f", {1, 7, 4}).items().size() == 3);
    CHECK(parse_json(std::string(64, '[') + std::string(64, ']'), "f").is_array());
  }

  TEST_CASE("what is written reads back equal") {
    const char* texts[] = {R"({"z":1,"a":[],"m":{},"s":"\"\\\u0001\t\n\r/é","n":null,"t":true,"f":false})",
                           "[-1,9223372036854775807,-9223372036854775808,18446744073709551615]",
                           "[[[1]],{\"a\":[{}]}]", "\"text\"", "-0.5"};
    for (const char* text : texts) {
      const json value = parse_json(text, "f");
      for (const int indent : {-1, 0, 2}) CHECK(parse_json(to_string(value, indent), "f") == value);
      CHECK(parse_json(to_spaced_string(value), "f") == value);
    }
    const json small = parse_json(R"({"b":[1,2],"a":{}})", "f");
    CHECK(to_string(small) == R"({"b":[1,2],"a":{}})");
    CHECK(to_spaced_string(small) == R"({"b": [1, 2], "a": {}})");
    CHECK(to_string(small, 2) == "{\n  \"b\": [\n    1,\n    2\n  ],\n  \"a\": {}\n}");
  }

  TEST_CASE("doubles print as Python prints them and read back to the same bits") {
    const std::pair<double, const char*> rows[] = {{0.0, "0.0"},
                                                   {-0.0, "-0.0"},
                                                   {1.0, "1.0"},
                                                   {100.0, "100.0"},
                                                   {0.1, "0.1"},
                                                   {1e-4, "0.0001"},
                                                   {1e-5, "1e-05"},
                                                   {1e15, "1000000000000000.0"},
                                                   {1e16, "1e+16"},
                                                   {1.5e-7, "1.5e-07"},
                                                   {1e100, "1e+100"},
                                                   {123.456, "123.456"},
                                                   {0.056444644927978516, "0.056444644927978516"},
                                                   {5e-324, "5e-324"},
                                                   {1.7976931348623157e308, "1.7976931348623157e+308"},
                                                   {-2.5, "-2.5"}};
    for (const auto& [value, text] : rows) CHECK(to_string(json{value}) == text);
    std::uint64_t state = 1;
    for (int i = 0; i < 20'000; ++i) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      double value;
      std::memcpy(&value, &state, sizeof value);
      if (!std::isfinite(value)) continue;
      const double back = parse_json(to_string(json{value}), "f").to_double().value();
      CHECK(std::memcmp(&back, &value, sizeof back) == 0);
    }
    CHECK(to_string(json{std::numeric_limits<double>::quiet_NaN()}) == "null");
    CHECK(to_string(json{-std::numeric_limits<double>::infinity()}) == "null");
  }

  TEST_CASE("objects and lists can be put together") {
    json value;
    value.set("b", 1).set("a", "x").set("b", 2.5);
    json list;
    list.push_back(true).push_back(json::object());
    value.set("c", list);
    CHECK(to_string(value) == R"({"b":2.5,"a":"x","c":[true,{}]})");
    CHECK(value == parse_json(R"({"c":[true,{}],"a":"x","b":2.5})", "f"));
    CHECK_FALSE(value == parse_json(R"({"c":[true,{}],"a":"x","b":2})", "f"));
    CHECK_FALSE(value == parse_json(R"({"c":[true,{}],"a":"x","d":2.5})", "f"));
    CHECK(json{1} == json{1u});
    CHECK_FALSE(json{1} == json{1.0});
    CHECK(contains(message_of<pesc::shape_error>([] { json{1}.set("a", 1); }), "this is an integer"));
    CHECK(contains(message_of<pesc::shape_error>([] { json::object().push_back(1); }), "this is an object"));
  }

  TEST_CASE("fields read by type and name file and key when they cannot") {
    const json value = parse_json(
        R"({"i": 3, "r": 2.5, "s": "text", "b": true, "n": null, "o": {"i": "no"}, "l": [1], "big": 9223372036854775808})",
        "config.json");
    const json_fields f{value, "config.json"};
    CHECK(f.get_int("i") == 3);
    CHECK(f.get_int("none", 7) == 7);
    CHECK(f.get_int("n", 8) == 8);
    CHECK(f.get_double("i") == 3.0);
    CHECK(f.get_double("r", 1) == 2.5);
    CHECK(f.get_string("s") == "text");
    CHECK(f.get_string("none", "else") == "else");
    CHECK(f.get_bool("b"));
    CHECK_FALSE(f.get_bool("none", false));
    CHECK(f.get_list("l").size() == 1);
    CHECK_FALSE(f.has("n"));
    const auto says = [&](auto action, const char* expected) { CHECK(message_of(action) == expected); };
    says([&] { static_cast<void>(f.get_int("s")); },
         R"(config.json: key "s" is a string, expected an integer)");
    says([&] { static_cast<void>(f.get_int("r")); },
         R"(config.json: key "r" is a number, expected an integer)");
    says([&] { static_cast<void>(f.get_int("none")); },
         R"(config.json: key "none" is missing, expected an integer)");
    says([&] { static_cast<void>(f.get_int("big")); },
         R"(config.json: key "big" is 9223372036854775808, expected less than 2^63)");
    says([&] { static_cast<void>(f.get_double("b")); },
         R"(config.json: key "b" is a truth value, expected a number)");
    says([&] { static_cast<void>(f.get_bool("i")); },
         R"(config.json: key "i" is an integer, expected true or false)");
    says([&] { static_cast<void>(f.get_string("l")); },
         R"(config.json: key "l" is a list, expected a string)");
    says([&] { static_cast<void>(f.get_list("o")); },
         R"(config.json: key "o" is an object, expected a list)");
    says([&] { static_cast<void>(f.get_object("s")); },
         R"(config.json: key "s" is a string, expected an object)");
    says([&] { static_cast<void>(f.get_object("o").get_int("i")); },
         R"(config.json: key "o.i" is a string, expected an integer)");
    says(
        [&] {
          static_cast<void>(json_fields{json{1}, "x"});
        },
        "x: the text is an integer, expected an object");
  }

  TEST_CASE("a file is read with its path in every message") {
    const support::temporary_folder folder;
    const std::string good = folder.write("good.json", "{\"a\": 1}");
    CHECK(pesc::read_json(good).find("a")->to_int() == 1);
    const std::string bad = folder.write("bad.json", "{\"a\": }");
    CHECK(message_of([&] { static_cast<void>(pesc::read_json(bad)); }).starts_with(bad + ": byte 6: "));
    CHECK(contains(message_of([&] { static_cast<void>(pesc::read_json(good, {64, 3, 10})); }), "at most 3"));
    CHECK(contains(
        message_of<pesc::io_error>([&] { static_cast<void>(pesc::read_json(folder.path("no.json"))); }),
        "there is no such file"));
  }
}
