// SPDX-License-Identifier: Apache-2.0
#include "pesc/io/safetensors.hpp"

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "support/data.hpp"
#include "support/message_of.hpp"
#include "support/temporary_folder.hpp"

using pesc::safetensors_file;
using support::contains;
using support::message_of;

namespace {

std::string length_field(std::uint64_t n) { return {reinterpret_cast<const char*>(&n), 8}; }

/// A file with this header and `data` zero bytes behind it.
std::string file_with(const std::string& header, std::size_t data) {
  return length_field(header.size()) + header + std::string(data, '\0');
}

std::vector<std::byte> bytes_of(const std::string& text) {
  const auto bytes = pesc::as_bytes(text);
  return {bytes.begin(), bytes.end()};
}

std::string refusal(const std::string& bytes) {
  return message_of(
      [&] { static_cast<void>(safetensors_file::from_bytes("m.safetensors", bytes_of(bytes))); });
}

std::string entry(const std::string& name, const std::string& dtype, const std::string& shape, int begin,
                  int end) {
  return "\"" + name + R"(":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":[)" +
         std::to_string(begin) + "," + std::to_string(end) + "]}";
}

}  // namespace

TEST_SUITE("io/safetensors") {
  TEST_CASE("tensors, shapes and metadata are found by name") {
    std::string text =
        file_with(R"({"__metadata__":{"format":"pt","n":""},)" + entry("b", "BF16", "[3]", 9, 15) + "," +
                      entry("a", "F32", "[1,2]", 1, 9) + "," + entry("z", "U8", "[]", 0, 1) + "," +
                      entry("none", "F32", "[0,7]", 15, 15) + "}   ",
                  15);
    const float values[] = {1.0f, -2.5f};
    std::memcpy(text.data() + text.size() - 14, values, 8);
    const auto file = safetensors_file::from_bytes("m.safetensors", bytes_of(text));
    CHECK(file.names() == std::vector<std::string>{"a", "b", "none", "z"});
    CHECK(file.metadata().at("format") == "pt");
    REQUIRE(file.find("a") != nullptr);
    CHECK(file.find("a")->shape == std::vector<pesc::index_t>{1, 2});
    CHECK(file.find("a")->dtype == pesc::element_type::f32);
    CHECK(file.read_floats("a") == std::vector<float>{1.0f, -2.5f});
    CHECK(file.read<float>("a") == std::vector<float>{1.0f, -2.5f});
    CHECK(file.read_floats("b").size() == 3);
    CHECK(file.find("z")->count() == 1);
    CHECK(file.read<std::uint8_t>("z") == std::vector<std::uint8_t>{0});
    CHECK(file.read_floats("none").empty());
    CHECK(file.find("c") == nullptr);
    CHECK(message_of([&] { static_cast<void>(file.read_floats("c")); }) ==
          "m.safetensors: there is no tensor \"c\" among 4");
    CHECK(contains(message_of([&] { static_cast<void>(file.read<std::int64_t>("a")); }),
                   "is F32, expected I64"));
  }

  TEST_CASE("an unknown element type is an error only when the tensor is asked for") {
    const auto file = safetensors_file::from_bytes(
        "m", bytes_of(file_with(
                 "{" + entry("w", "Q3", "[5]", 0, 2) + "," + entry("x", "U8", "[1]", 2, 3) + "}", 3)));
    CHECK(file.find("x")->bytes.size() == 1);
    CHECK(message_of([&] { static_cast<void>(file.read_floats("w")); }) ==
          "m: tensor \"w\" is Q3, expected F32, F16, BF16 or F64");
  }

  TEST_CASE("every malformed header is refused with its reason") {
    struct row {
      std::string bytes, expected;
    };
    const std::string deep = R"({"a":)" + std::string(20, '[') + std::string(20, ']') + "}";
    const row rows[] = {
        {"", "the file has 0 bytes, expected at least 8"},
        {"1234567", "the file has 7 bytes, expected at least 8"},
        {length_field(8388608) + std::string(512, ' '),
         "header claims 8388608 bytes, file has 512 after the length field. The download may be cut short."},
        {length_field(100'000'001) + "{}", "header claims 100000001 bytes, at most 100000000"},
        {length_field(std::uint64_t{1} << 63) + "{}", "header claims 9223372036854775808 bytes"},
        {length_field(~std::uint64_t{0}) + "{}", "header claims 18446744073709551615 bytes"},
        {length_field(std::uint64_t{2} << 56) + "{}", "big-endian"},
        {length_field(0), "the header is empty"},
        {file_with("[]", 0), "byte 8: the header starts with \"[\", expected \"{\""},
        {file_with(" {}", 0), "byte 8: the header starts with \" \""},
        {file_with("{", 0), "byte 9: the JSON text ends too early"},
        {file_with("{} x", 0), "byte 11:"},
        {file_with(std::string("{}\0", 3), 0), "byte 10: a zero byte"},
        {file_with("{\"\xFF\":{}}", 0), "ill-formed UTF-8"},
        {file_with(R"({"\q":{}})", 0), "byte 11:"},
        {file_with("{\"a\x01\":{}}", 0), "control character"},
        {file_with(deep, 0), R"(tensor "a" is a list, expected an object)"},
        {file_with(R"({"a":1})", 0), R"(tensor "a" is an integer, expected an object)"},
        {file_with(R"({"a":null})", 0), R"(tensor "a" is null, expected an object)"},
        {file_with(R"({"a":[]})", 0), R"(tensor "a" is a list, expected an object)"},
        {file_with(R"({"a":{"dtype":"U8","shape":[1]}})", 1), R"(tensor "a" has no "data_offsets")"},
        {file_with(R"({"a":{"shape":[1],"data_offsets":[0,1]}})", 1), R"(tensor "a" has no "dtype")"},
        {file_with(R"({"a":{"dtype":"U8","data_offsets":[0,1]}})", 1), R"(tensor "a" has no "shape")"},
        {file_with(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":1}})", 1),
         R"(unknown key "x")"},
        {file_with(R"({"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1),
         R"(tensor "a": key "dtype" appears twice)"},
        {file_with(R"({"a":{"dtype":"U8","shape":[1],"shape":[1],"data_offsets":[0,1]}})", 1),
         R"(key "shape" appears twice)"},
        {file_with(R"({"a":{"dtype":1,"shape":[1],"data_offsets":[0,1]}})", 1), R"("dtype" is an integer)"},
        {file_with(R"({"a":{"dtype":["U8"],"shape":[1],"data_offsets":[0,1]}})", 1),
         R"("dtype" has the wrong type)"},
        {file_with(R"({"a":{"dtype":"U8","shape":1,"data_offsets":[0,1]}})", 1),
         R"("shape" is an integer, expected a list)"},
        {file_with(R"({"a":{"dtype":"U8","shape":{},"data_offsets":[0,1]}})", 1),
         R"("shape" has the wrong type)"},
        {file_with(R"({"a":{"dtype":"U8","shape":[[1]],"data_offsets":[0,1]}})", 1),
         "holds a list or object"},
        {file_with(R"({"a":{"dtype":"U8","shape":["1"],"data_offsets":[0,1]}})", 1),
         R"("shape" holds a string)"},
        {file_with(R"({"a":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}})", 1),
         R"("shape" holds a number)"},
        {file_with(R"({"a":{"dtype":"U8","shape":[1e3],"data_offsets":[0,1]}})", 1),
         R"("shape" holds a number)"},
        {file_with(R"({"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}})", 1), "a negative number"},
        {file_with(R"({"a":{"dtype":"U8","shape":[18446744073709551616],"data_offsets":[0,1]}})", 1),
         "expected integers from 0 to 2^63-1"},
        {file_with(R"({"a":{"dtype":"U8","shape":[9223372036854775808],"data_offsets":[0,1]}})", 1),
         "expected integers from 0 to 2^63-1"},
        {file_with("{" + entry("a", "U8", "[1,1,1,1,1,1,1,1,1]", 0, 1) + "}", 1), "more than 8 numbers"},
        {file_with(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0]}})", 1),
         "data_offsets has 1 numbers"},
        {file_with(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,2]}})", 1), "more than 2 numbers"},
        {file_with("{" + entry("w", "U8", "[1]", 0, 1) + "," + entry("w", "U8", "[1]", 1, 2) + "}", 2),
         R"(tensor "w" appears twice)"},
        {file_with("{" + entry("a", "U8", "[1]", 1, 0) + "}", 1),
         "ends at data byte 0 before it begins at 1"},
        {file_with("{" + entry("a", "U8", "[4]", 0, 4) + "," + entry("b", "U8", "[4]", 2, 6) + "}", 6),
         R"(tensors "a" and "b" overlap at data byte 2)"},
        {file_with("{" + entry("a", "U8", "[1]", 0, 1) + "," + entry("b", "U8", "[1]", 2, 3) + "}", 3),
         R"(data bytes 1 to 2 before tensor "b" belong to no tensor)"},
        {file_with("{" + entry("a", "U8", "[1]", 1, 2) + "}", 2), "data bytes 0 to 1 before tensor \"a\""},
        {file_with("{" + entry("a", "U8", "[9]", 0, 9) + "}", 4),
         "ends at data byte 9, the file has 4 bytes"},
        {file_with("{" + entry("a", "U8", "[1]", 0, 1) + "}", 4),
         "the last 3 of 4 data bytes belong to no tensor"},
        {file_with("{}", 4), "the last 4 of 4 data bytes belong to no tensor"},
        {file_with("{" + entry("a", "BF16", "[64,64]", 0, 4096) + "}", 4096),
         R"(tensor "a" has 4096 bytes but [64, 64] BF16 needs 8192)"},
        {file_with("{" + entry("a", "F32", "[4294967296,4294967296]", 0, 0) + "}", 0),
         "shape [4294967296, 4294967296] of F32 overflows"},
        {file_with("{" + entry("a", "F32", "[0,4294967296,4294967296]", 0, 0) + "}", 0), "overflows"},
        {file_with("{" + entry("a", "Q3", "[4294967296,4294967296]", 0, 0) + "}", 0), "of Q3 overflows"},
        {file_with("{" + entry("a", "F4", "[3]", 0, 2) + "}", 2), "is 12 bits, expected whole bytes"},
        {file_with(R"({"__metadata__":{"a":1}})", 0), R"(metadata "a" is an integer, expected a string)"},
        {file_with(R"({"__metadata__":{"a":"1","a":"2"}})", 0), R"(metadata "a" appears twice)"},
        {file_with(R"({"__metadata__":{},"__metadata__":{}})", 0), "\"__metadata__\" appears twice"},
        {file_with(R"({"__metadata__":{"a":{}}})", 0), "has the wrong type"},
        {file_with(R"({"__metadata__":[]})", 0), "is a list, expected an object"},
        {file_with(R"({"__metadata__":"x"})", 0), "is a string, expected an object"},
        {"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "this is a Git LFS pointer"},
        {"PK\x03\x04" + std::string(40, 'x'), "this is a zip archive"},
        {"<!DOCTYPE html><html></html>", "this is a web page"},
        {"\x1F\x8B" + std::string(40, 'x'), "this is a gzip file"},
        {"\x80\x02" + std::string(40, 'x'), "this is a Python pickle"},
    };
    for (const row& r : rows) {
      CAPTURE(r.bytes);
      const std::string message = refusal(r.bytes);
      CAPTURE(message);
      CHECK(contains(message, r.expected));
      CHECK(message.starts_with("m.safetensors: "));
    }
  }

  TEST_CASE("every cut of a good file is refused") {
    const std::string good =
        file_with("{" + entry("a", "F32", "[2]", 0, 8) + "," + entry("b", "U8", "[3]", 8, 11) + "}", 11);
    CHECK(refusal(good) == "no error");
    for (std::size_t size = 0; size < good.size(); ++size) CHECK(refusal(good.substr(0, size)) != "no error");
    CHECK(refusal(good + "x") != "no error");
  }

  TEST_CASE("a file is the same read, mapped and from bytes") {
    const support::temporary_folder folder;
    const std::string text =
        file_with(R"({"__metadata__":{"long":")" + std::string(700, 'x') + "\"}," +
                      entry("a", "U8", "[4000]", 0, 4000) + "," + entry("b", "BF16", "[2]", 4000, 4004) + "}",
                  4004);
    std::string varied = text;
    for (std::size_t i = text.size() - 4004; i < text.size(); ++i) varied[i] = static_cast<char>(i * 31);
    const std::string path = folder.write("m.safetensors", varied);
    const auto reference = safetensors_file::from_bytes("m", bytes_of(varied));
    for (const bool map : {false, true}) {
      const auto opened = safetensors_file::open(path, {map});
      const auto moved = [](safetensors_file file) { return file; }(safetensors_file::open(path, {map}));
      for (const auto* file : {&opened, &moved}) {
        CHECK(file->name() == path);
        CHECK(file->metadata() == reference.metadata());
        CHECK(file->read<std::uint8_t>("a") == reference.read<std::uint8_t>("a"));
        CHECK(file->read_floats("b") == reference.read_floats("b"));
      }
    }
  }

  TEST_CASE("a huge file with a bad header is refused before memory is taken for it") {
    const support::temporary_folder folder;
    const std::string path =
        folder.write("m.safetensors", file_with("{" + entry("a", "U8", "[1]", 0, 1) + "}", 0));
    std::filesystem::resize_file(path, std::uintmax_t{1} << 40);
    for (const bool map : {false, true})
      CHECK(contains(message_of([&] { static_cast<void>(safetensors_file::open(path, {map})); }),
                     "data bytes belong to no tensor"));
    CHECK(contains(
        message_of<pesc::io_error>([&] { static_cast<void>(safetensors_file::open(folder.path("x"))); }),
        "there is no such file"));
  }

  TEST_CASE("reference files open and their values agree with each other") {
    const auto folder = support::external_golden("lora_linear");
    if (!folder) PESC_SKIP("no folder of reference outputs");
    int files = 0;
    for (const auto& found : std::filesystem::directory_iterator(*folder)) {
      if (found.path().extension() != ".safetensors") continue;
      const auto file = safetensors_file::open(found.path().string());
      CHECK(file.metadata().at("kind") == "lora_linear");
      const auto weight = file.read_floats("weight");
      const auto delta = file.read_floats("expected.delta");
      const auto merged = file.read_floats("expected.merged");
      REQUIRE(merged.size() == weight.size());
      for (std::size_t i = 0; i < merged.size(); ++i)
        CHECK(merged[i] == doctest::Approx(weight[i] + delta[i]).epsilon(1e-5));
      ++files;
    }
    CHECK(files > 0);
  }
}
