// SPDX-License-Identifier: Apache-2.0
#include "pesc/text/tokenizer_files.hpp"

#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "support/data.hpp"
#include "support/gguf_builder.hpp"
#include "support/message_of.hpp"
#include "support/temporary_folder.hpp"

TEST_SUITE("text/tokenizer_files") {
  TEST_CASE("a file is copied with those that belong to it") {
    const support::temporary_folder folder;
    const std::string path = folder.write("tokenizer.json", "{}");
    CHECK(pesc::tokenizer_files(path).size() == 1);
    folder.write("tokenizer_config.json", "{}");
    const auto files = pesc::tokenizer_files(path);
    REQUIRE(files.size() == 2);
    CHECK(files[0].name == "tokenizer.json");
    CHECK(files[0].source == path);
    CHECK(files[1].name == "tokenizer_config.json");
    const std::string other = (support::example_data() / "tok512.bin").string();
    CHECK(pesc::tokenizer_files(other).size() == 1);
  }

  TEST_CASE("the tokenizer inside a GGUF file becomes files of its own") {
    const support::temporary_folder folder;
    support::gguf_builder b;
    b.string("tokenizer.ggml.model", "llama");
    b.list<std::string>("tokenizer.ggml.tokens", 8, {"<unk>", "a", "b", "ab"});
    b.list<float>("tokenizer.ggml.scores", 6, {0, -1, -2, -3});
    b.list<std::int32_t>("tokenizer.ggml.token_type", 5, {2, 1, 1, 1});
    b.u32("tokenizer.ggml.unknown_token_id", 0);
    const std::string path = folder.write("m.gguf", pesc::as_text(b.bytes()));
    const pesc::tokenizer inside = pesc::load_tokenizer(path);
    const auto files = pesc::tokenizer_files(path);
    REQUIRE(files.size() == 2);
    for (const auto& file : files) folder.write(file.name, file.text);
    const pesc::tokenizer outside = pesc::load_tokenizer(folder.path(files[0].name));
    for (const char* text : {"ab", "a b", "bab", "x"}) {
      const pesc::encode_options bare{.bos = false};
      CHECK(outside.encode(text, bare) == inside.encode(text, bare));
    }
  }

  TEST_CASE("a damaged tokenizer is refused before anything is written") {
    const support::temporary_folder folder;
    support::gguf_builder b;
    b.string("tokenizer.ggml.model", "other").list<std::string>("tokenizer.ggml.tokens", 8, {"a"});
    const std::string path = folder.write("m.gguf", pesc::as_text(b.bytes()));
    CHECK(support::contains(support::message_of([&] { static_cast<void>(pesc::tokenizer_files(path)); }),
                            "\"other\""));
  }
}
