// SPDX-License-Identifier: Apache-2.0
#include "pesc/text/load_tokenizer.hpp"

#include <cstdint>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "support/data.hpp"
#include "support/message_of.hpp"
#include "support/temporary_folder.hpp"
#include "text/tokenizer_files.hpp"

using namespace support;
using pesc::load_tokenizer;
using ids = std::vector<std::int32_t>;

namespace {

const char* chatml = "{{ 'template' }}";

std::string refusal(const std::string& path, pesc::index_t pieces = -1) {
  return message_of([&] { static_cast<void>(load_tokenizer(path, pieces)); });
}

}  // namespace

TEST_SUITE("text/load_tokenizer") {
  TEST_CASE("files are known by what they hold, whatever they are called") {
    const temporary_folder folder;
    const auto bytes = byte_level_json({"ab"}, {"a b"});
    const auto byte_level = load_tokenizer(folder.write("x.bin", "\n " + to_string(bytes, 2)));
    CHECK(byte_level.encode("ab") == ids{256});
    const auto spm = load_tokenizer(
        folder.write("y.json", model_start() + model_piece("▁", 0) + model_piece("a", 0) + model_specs()));
    CHECK(spm.encode("a") == ids{1, 259, 260});
    folder.write("merges.txt", "#version: 0.2\na b\n");
    const auto pair = load_tokenizer(folder.write("z.model", to_string(*bytes.find("model")->find("vocab"))));
    CHECK(pair.encode("ab") == ids{256});
    PESC_REQUIRE_DATA(path, "tok512.bin");
    CHECK(load_tokenizer(path.string(), 512).size() == 512);
  }

  TEST_CASE("a llama2.c file of pieces up to ten bytes is not taken for SentencePiece") {
    const temporary_folder folder;
    const std::string zeros(3, '\0');
    for (const char longest : {'\x01', '\x0A', '\x7F'}) {
      const std::string start = longest + zeros;
      CHECK(pesc::tokenizer_kind_of(pesc::as_bytes(start)) == pesc::tokenizer_kind::llama2c);
    }
    CHECK(pesc::tokenizer_kind_of(pesc::as_bytes("\x0A\x0E\x0A\x05<unk>")) ==
          pesc::tokenizer_kind::sentencepiece);
    CHECK(pesc::tokenizer_kind_of(pesc::as_bytes("\xEF\xBB\xBF {")) == pesc::tokenizer_kind::json);
    for (const char* text : {"", " ", "abc", "abcd", "#version"})
      CHECK(pesc::tokenizer_kind_of(pesc::as_bytes(text)) == pesc::tokenizer_kind::unknown);
  }

  TEST_CASE("marks and chat template come from the files beside") {
    const temporary_folder folder;
    json_layout layout = json_layout::never;
    auto value = spaced_json({"▁", "<e>"}, {}, layout).set("post_processor", pesc::json{});
    auto tokens = *value.find("added_tokens");
    tokens.push_back(from_text(R"({"id":260,"content":"<e>","special":true})"));
    const std::string file = folder.write("tokenizer.json", to_string(value.set("added_tokens", tokens)));
    CHECK(load_tokenizer(file).eos() == 2);
    CHECK(load_tokenizer(file).chat_template().empty());
    pesc::json config = pesc::json::object();
    config.set("bos_token", "</s>").set("eos_token", from_text(R"({"content":"<e>"})"));
    config.set("chat_template", chatml);
    folder.write("tokenizer_config.json", to_string(config));
    const auto t = load_tokenizer(file);
    CHECK(t.bos() == 2);
    CHECK(t.eos() == 260);
    CHECK_FALSE(t.add_bos());
    CHECK(t.chat_template() == chatml);
    config.set("chat_template",
               from_text(R"([{"name":"other","template":"x"},{"name":"default","template":"y"}])"));
    folder.write("tokenizer_config.json", to_string(config.set("eos_token", pesc::json{})));
    CHECK(load_tokenizer(file).chat_template() == "y");
    CHECK(load_tokenizer(file).eos() == 2);
    folder.write("chat_template.jinja", "z");
    CHECK(load_tokenizer(file).chat_template() == "z");
    folder.write("tokenizer_config.json", "{");
    CHECK(contains(refusal(file), "tokenizer_config.json: byte"));
  }

  TEST_CASE("what is no tokenizer is refused, with what was expected") {
    const temporary_folder folder;
    CHECK(contains(refusal(folder.write("a", "")),
                   "this is no tokenizer (found 0 bytes of another kind, expected "
                   "tokenizer.json, tokenizer.model, vocab.json or"));
    CHECK(contains(refusal(folder.write("a", "once upon a time")), "this is no tokenizer"));
    CHECK(contains(refusal(folder.write("a", "{}")),
                   "this is no tokenizer (found a JSON object of another kind"));
    CHECK(contains(refusal(folder.write("a", R"({"hidden_size":"x"})")), "a JSON object of another kind"));
    CHECK(contains(refusal(folder.write("a", "GGUF....")), "a: byte"));
    CHECK(contains(refusal(folder.write("a", "version https://git-lfs.github.com/spec/v1\n")),
                   "Git LFS pointer"));
    CHECK(
        contains(message_of<pesc::io_error>([&] { static_cast<void>(load_tokenizer(folder.path("none"))); }),
                 "there is no such file"));
    CHECK(contains(message_of<pesc::io_error>(
                       [&] { static_cast<void>(load_tokenizer(folder.write("vocab.json", R"({"a":0})"))); }),
                   "merges.txt: there is no such file"));
  }

  TEST_CASE("a tokenizer of another size than the embedding is refused with both numbers") {
    const temporary_folder folder;
    const std::string file = folder.write("tokenizer.json", to_string(byte_level_json({}, {})));
    CHECK(load_tokenizer(file, 256).size() == 256);
    CHECK(refusal(file, 512) ==
          file + " has 256 pieces, the embedding has 512 rows. Use the tokenizer that belongs to the model.");
  }
}
