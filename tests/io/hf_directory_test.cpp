// SPDX-License-Identifier: Apache-2.0
#include "pesc/io/hf_directory.hpp"

#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "pesc/io/safetensors_writer.hpp"
#include "support/data.hpp"
#include "support/message_of.hpp"
#include "support/temporary_folder.hpp"

using pesc::hf_directory;
using support::contains;
using support::message_of;

namespace {

/// A file whose tensors have one element each, their place in the list.
std::string tensors(const std::vector<std::string>& names) {
  pesc::safetensors_writer writer;
  std::vector<float> values(names.size());
  for (std::size_t i = 0; i < names.size(); ++i) {
    values[i] = static_cast<float>(i);
    writer.add(names[i], {1}, std::span<const float>{values}.subspan(i, 1));
  }
  return std::string{pesc::as_text(writer.to_bytes())};
}

std::string refusal(const support::temporary_folder& folder) {
  return message_of([&] { static_cast<void>(hf_directory::open(folder.path())); });
}

/// A folder with two shards and this index.
std::string index_refusal(const std::string& index) {
  const support::temporary_folder folder;
  folder.write("config.json", "{}");
  folder.write("one.safetensors", tensors({"a", "b"}));
  folder.write("two.safetensors", tensors({"c"}));
  folder.write("model.safetensors.index.json", index);
  const std::string message =
      message_of<pesc::error>([&] { static_cast<void>(hf_directory::open(folder.path())); });
  return message.starts_with(folder.path()) ? message.substr(folder.path().size()) : message;
}

}  // namespace

TEST_SUITE("io/hf_directory") {
  TEST_CASE("a folder with one file") {
    const support::temporary_folder folder;
    folder.write("config.json", R"({"x": 1})");
    folder.write("model.safetensors", tensors({"a", "c", "b"}));
    for (const bool map : {false, true}) {
      auto model = hf_directory::open(folder.path() + "/", {map});
      CHECK(model.path() == folder.path());
      CHECK(model.config_name() == folder.path("config.json"));
      CHECK(model.config().find("x")->to_int() == 1);
      CHECK(model.names() == std::vector<std::string>{"a", "b", "c"});
      CHECK(model.contains("b"));
      CHECK_FALSE(model.contains("d"));
      CHECK(model.unused_names().size() == 3);
      CHECK(model.read_floats("b") == std::vector<float>{2.0f});
      CHECK(model.find("a") != nullptr);
      CHECK(model.find("d") == nullptr);
      CHECK(model.unused_names() == std::vector<std::string>{"c"});
      CHECK(model.warnings().empty());
      CHECK(message_of([&] { static_cast<void>(model.get("d")); }) ==
            folder.path() + ": there is no tensor \"d\" among 3");
    }
  }

  TEST_CASE("a folder with shards is one list of tensors") {
    const support::temporary_folder folder;
    folder.write("config.json", "{}");
    folder.write("one.safetensors", tensors({"a", "b"}));
    folder.write("two.safetensors", tensors({"c", "extra"}));
    folder.write("model.safetensors.index.json",
                 R"({"metadata": {"total_size": 99}, "weight_map":
                     {"c": "two.safetensors", "b": "one.safetensors", "a": "one.safetensors"}})");
    auto model = hf_directory::open(folder.path());
    CHECK(model.files().size() == 2);
    CHECK(model.names() == std::vector<std::string>{"a", "b", "c", "extra"});
    CHECK(model.read_floats("b") == std::vector<float>{1.0f});
    CHECK(model.read_floats("extra") == std::vector<float>{1.0f});
    REQUIRE(model.warnings().size() == 2);
    CHECK(contains(model.warnings()[0], "the shards hold 4 tensors, the index names 3"));
    CHECK(contains(model.warnings()[1], "total_size is 99, the tensors have 16 bytes"));
  }

  TEST_CASE("a damaged index is refused by what is wrong") {
    const std::string name = "/model.safetensors.index.json: ";
    CHECK(index_refusal("[]") == name + "the text is a list, expected an object");
    CHECK(index_refusal("{}") == name + "key \"weight_map\" is missing, expected an object");
    CHECK(index_refusal(R"({"weight_map": 1})") ==
          name + "key \"weight_map\" is an integer, expected an object");
    CHECK(index_refusal(R"({"weight_map": {}})") == name + "weight_map is empty, expected tensor names");
    CHECK(index_refusal(R"({"weight_map": {"a": {"file": "one.safetensors"}}})") ==
          name + "weight_map: tensor \"a\" is an object, expected a file name");
    for (const char* shard :
         {"../one.safetensors", "/etc/passwd", "..", ".", "", "a/b", "C:x", "a\\\\b", "a\\u0000b"}) {
      CAPTURE(shard);
      const std::string message = index_refusal(std::string(R"({"weight_map": {"a": ")") + shard + R"("}})");
      CHECK(contains(message, name + "shard "));
      CHECK(contains(message, " leaves the model folder"));
    }
    CHECK(index_refusal(R"({"weight_map": {"a": "one.safetensors", "c": "three.safetensors"}})") ==
          name + "shard \"three.safetensors\" is missing, one of 2. The download may be incomplete.");
    CHECK(index_refusal(R"({"weight_map": {"a": "one.safetensors", "d": "two.safetensors"}})") ==
          name + "tensor \"d\" is not in shard \"two.safetensors\"");
    CHECK(
        index_refusal(
            R"({"weight_map": {"a": "two.safetensors", "c": "two.safetensors", "b": "one.safetensors"}})") ==
        name + "tensor \"a\" is not in shard \"two.safetensors\"");
    CHECK(contains(index_refusal(R"({"weight_map": {"a": "one.safetensors", "a": "two.safetensors"}})"),
                   "key \"a\" appears twice"));
  }

  TEST_CASE("a tensor in two shards is refused with both files") {
    const support::temporary_folder folder;
    folder.write("config.json", "{}");
    folder.write("one.safetensors", tensors({"a", "b"}));
    folder.write("two.safetensors", tensors({"b"}));
    folder.write("model.safetensors.index.json",
                 R"({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}})");
    CHECK(refusal(folder) == folder.path() + ": tensor \"b\" is in two files, " +
                                 folder.path("one.safetensors") + " and " + folder.path("two.safetensors"));
  }

  TEST_CASE("a folder that is no model says what is missing") {
    const support::temporary_folder folder;
    CHECK(contains(refusal(folder), "there is no config.json in this folder"));
    folder.write("config.json", "{}");
    CHECK(contains(refusal(folder), "there is neither model.safetensors nor model.safetensors.index.json"));
    folder.write("tok.bin", "x");
    CHECK(contains(refusal(folder), "there is neither"));
    folder.write("pytorch_model-00002-of-00002.bin", "x");
    folder.write("pytorch_model-00001-of-00002.bin", "x");
    CHECK(contains(refusal(folder),
                   "holds only pickled weights (\"pytorch_model-00001-of-00002.bin\"), which can run"));
    CHECK(contains(refusal(folder), "safe_serialization=True"));
    CHECK(contains(
        message_of<pesc::io_error>([&] { static_cast<void>(hf_directory::open(folder.path("no"))); }),
        "there is no such folder"));
    CHECK(contains(
        message_of<pesc::io_error>([&] { static_cast<void>(hf_directory::open(folder.path("tok.bin"))); }),
        "this is a file, expected a model folder"));
  }

  TEST_CASE("the reference folders open, and the index agrees with the shards") {
    const auto root = support::external_golden("llama");
    if (!root) PESC_SKIP("no folder of reference outputs");
    int sharded = 0;
    for (const auto& found : std::filesystem::directory_iterator(*root)) {
      if (!found.is_directory()) continue;
      auto model = hf_directory::open(found.path().string());
      CHECK(model.contains("model.embed_tokens.weight"));
      CHECK(model.warnings().empty());
      sharded += model.files().size() > 1 ? 1 : 0;
    }
    CHECK(sharded > 0);
  }
}
