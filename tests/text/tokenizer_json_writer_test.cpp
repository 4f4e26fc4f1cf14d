// SPDX-License-Identifier: Apache-2.0
#include "pesc/text/tokenizer_json_writer.hpp"

#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "pesc/text/byte_alphabet.hpp"
#include "pesc/text/tokenizer_json.hpp"

namespace {

/// Every byte by its printable character, some joins, and two marks.
pesc::gguf_vocabulary byte_level(const char* pattern) {
  pesc::gguf_vocabulary v;
  v.model = "gpt2";
  v.pre = pattern;
  for (int byte = 0; byte < 256; ++byte)
    v.tokens.push_back(pesc::byte_alphabet::write(std::string(1, static_cast<char>(byte))));
  const std::string space = v.tokens[' '];
  for (const std::string& piece :
       {std::string{"th"}, std::string{"the"}, space + "t", space + "the", std::string{"12"}})
    v.tokens.push_back(piece);
  v.merges = {"t h", "th e", space + " t", space + " the", "1 2"};
  v.tokens.insert(v.tokens.end(), {"<|start|>", "<|end|>"});
  v.token_type.assign(v.tokens.size(), 1);
  v.token_type[v.tokens.size() - 2] = v.token_type[v.tokens.size() - 1] = 3;
  v.bos_token_id = static_cast<std::int64_t>(v.tokens.size()) - 2;
  v.eos_token_id = static_cast<std::int64_t>(v.tokens.size()) - 1;
  return v;
}

pesc::gguf_vocabulary spaced(bool prefix) {
  pesc::gguf_vocabulary v;
  v.model = "llama";
  v.tokens = {"<unk>", "<s>", "</s>"};
  v.token_type = {2, 3, 3};
  for (int byte = 0; byte < 256; ++byte) {
    constexpr char digits[] = "0123456789ABCDEF";
    v.tokens.push_back(std::string{"<0x"} + digits[byte / 16] + digits[byte % 16] + '>');
    v.token_type.push_back(6);
  }
  for (const char* piece : {"\u2581", "a", "b", "c", "ab", "\u2581a", "\u2581ab", "abc", "\u00E9"}) {
    v.tokens.emplace_back(piece);
    v.token_type.push_back(1);
  }
  for (std::size_t i = 0; i < v.tokens.size(); ++i) v.scores.push_back(-static_cast<float>(i));
  v.bos_token_id = 1;
  v.eos_token_id = 2;
  v.unknown_token_id = 0;
  v.add_space_prefix = prefix;
  return v;
}

/// The tokenizer of the arrays and that of the written text agree.
void check_same(const pesc::gguf_vocabulary& v) {
  const pesc::tokenizer a = pesc::tokenizer_from_gguf(v, "m.gguf");
  const std::string text = to_tokenizer_json(v);
  const pesc::tokenizer b = pesc::tokenizer_json::from("t.json", pesc::parse_json(text, "t.json"));
  REQUIRE(b.size() == a.size());
  CHECK(b.add_bos() == a.add_bos());
  for (const char* words :
       {"", " ", "the 12 then", " the  the\n\nabc ab c", "caf\u00E9 12345 \u4F60", "<|end|>the</s>ab"}) {
    CAPTURE(words);
    CHECK(b.encode(words, {.bos = false}) == a.encode(words, {.bos = false}));
    CHECK(b.decode(a.encode(words)) == a.decode(a.encode(words)));
  }
}

}  // namespace

TEST_SUITE("text/tokenizer_json_writer") {
  TEST_CASE("a written byte-level tokenizer is the one it was made from") {
    for (const char* pattern : {"gpt-2", "smollm", "llama-bpe"}) {
      CAPTURE(pattern);
      check_same(byte_level(pattern));
    }
  }

  TEST_CASE("a written SentencePiece-style tokenizer is the one it was made from") {
    check_same(spaced(true));
    check_same(spaced(false));
  }

  TEST_CASE("marks and chat template go to the file beside it") {
    auto v = byte_level("gpt-2");
    v.chat_template = "{{ \"x\" }}";
    const pesc::json found = pesc::parse_json(to_tokenizer_config(v), "c");
    CHECK(*found.find("bos_token")->if_string() == "<|start|>");
    CHECK(*found.find("eos_token")->if_string() == "<|end|>");
    CHECK(found.find("unk_token") == nullptr);
    CHECK(*found.find("chat_template")->if_string() == "{{ \"x\" }}");
  }
}
