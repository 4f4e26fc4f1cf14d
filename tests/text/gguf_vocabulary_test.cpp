// SPDX-License-Identifier: Apache-2.0
#include "pesc/text/gguf_vocabulary.hpp"

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "support/message_of.hpp"
#include "text/tokenizer_files.hpp"

using pesc::gguf_vocabulary;
using pesc::tokenizer_from_gguf;
using support::byte_level_gguf;
using support::contains;
using ids = std::vector<std::int32_t>;

namespace {

constexpr std::int32_t byte = 3;  // id of byte 0

gguf_vocabulary spaced() {
  gguf_vocabulary out{.model = "llama",
                      .pre = "",
                      .tokens = {"<unk>", "<s>", "</s>"},
                      .scores = {},
                      .token_type = {2, 3, 3},
                      .merges = {}};
  for (unsigned b = 0; b < 256; ++b) {
    out.tokens.push_back(support::byte_piece(b));
    out.token_type.push_back(6);
  }
  out.scores.resize(out.tokens.size());
  for (const char* piece : {"▁", "a", "▁a"}) {
    out.tokens.emplace_back(piece);
    out.token_type.push_back(1);
    out.scores.push_back(-static_cast<float>(out.tokens.size()));
  }
  out.bos_token_id = 1;
  out.eos_token_id = 2;
  out.unknown_token_id = 0;
  return out;
}

std::string refusal(const gguf_vocabulary& v) {
  return support::message_of([&] { static_cast<void>(tokenizer_from_gguf(v, "m.gguf")); });
}

}  // namespace

TEST_SUITE("text/gguf_vocabulary") {
  TEST_CASE("gpt2: marks are cut out, numbers stand alone, no mark goes before a text") {
    auto v = byte_level_gguf({"ab", "Ġab", "12"}, {"a b", "Ġ ab", "1 2"});
    v.bos_token_id = 1;
    v.eos_token_id = 2;
    v.unknown_token_id = 0;
    v.chat_template = "{{ x }}";
    const auto t = tokenizer_from_gguf(v, "m.gguf");
    CHECK(t.encode("<|im_start|>ab ab12<|im_end|>") == ids{1, 259, 260, byte + '1', byte + '2', 2});
    CHECK(t.encode("<|im_end|>", {.marks = pesc::mark_rule::text}).size() == 10);
    CHECK(t.bos() == 1);
    CHECK_FALSE(t.add_bos());
    CHECK(t.chat_template() == "{{ x }}");
    CHECK(t.decode(ids{1, 260, 2}) == " ab");
    CHECK(t.decode(ids{1, 260, 2}, {.skip_control = false}) == "<|im_start|> ab<|im_end|>");
    v.add_bos_token = true;
    CHECK(tokenizer_from_gguf(v, "m.gguf").encode("ab") == ids{1, 259});
    v.add_bos_token = {};
    v.pre = "llama-bpe";
    v.tokens.emplace_back("abc");
    v.token_type.push_back(1);
    CHECK(tokenizer_from_gguf(v, "m.gguf").encode("abc") == ids{1, 262});
    v.pre = "gpt-2";
    CHECK(tokenizer_from_gguf(v, "m.gguf").encode("abc12") == ids{259, byte + 'c', 261});
  }

  TEST_CASE("gpt2: missing bytes are unknown, or, where text never has them, U+FFFD") {
    auto v = byte_level_gguf({}, {});
    v.tokens.erase(v.tokens.begin() + byte + 0xFF);
    v.token_type.pop_back();
    CHECK(tokenizer_from_gguf(v, "m.gguf").encode("a\xFF") ==
          ids{byte + 'a', byte + 0xEF, byte + 0xBF, byte + 0xBD});
    v.unknown_token_id = 0;
    CHECK(tokenizer_from_gguf(v, "m.gguf").encode("a\xFF") == ids{byte + 'a', 0});
    v.unknown_token_id = {};
    v.tokens.erase(v.tokens.begin() + byte + 'a');
    v.token_type.pop_back();
    CHECK(contains(refusal(v), "(byte 97 has none)"));
  }

  TEST_CASE("gpt2: user-defined pieces are cut out and stand as they are written") {
    auto v = byte_level_gguf({}, {});
    v.tokens.emplace_back("  ");
    v.token_type.push_back(4);
    const auto t = tokenizer_from_gguf(v, "m.gguf");
    CHECK(t.encode("a  b", {.marks = pesc::mark_rule::text}) == ids{byte + 'a', 259, byte + 'b'});
    CHECK(t.decode(ids{259}) == "  ");
  }

  TEST_CASE("llama: scores, bytes and prefix") {
    const auto t = tokenizer_from_gguf(spaced(), "m.gguf");
    CHECK(t.encode("a a</s>a") == ids{1, 261, 261, 2, 261});
    CHECK(t.encode("é", {.bos = false}) == ids{259, 3 + 0xC3, 3 + 0xA9});
    CHECK(t.decode(t.encode("a a é")) == "a a é");
    auto v = spaced();
    v.add_space_prefix = false;
    v.add_bos_token = false;
    CHECK(tokenizer_from_gguf(v, "m.gguf").encode("a") == ids{260});
    CHECK(tokenizer_from_gguf(v, "m.gguf").decode(ids{261}) == " a");
  }

  TEST_CASE("arrays that do not fit are refused by their key") {
    auto v = byte_level_gguf({"ab"}, {"a b"});
    const auto changed = [&](auto change) {
      gguf_vocabulary copy = v;
      change(copy);
      return refusal(copy);
    };
    CHECK(
        changed([](auto& c) { c.model = "bert"; }) ==
        "m.gguf: unknown tokenizer (found \"bert\", expected gpt2 or llama) at key \"tokenizer.ggml.model\". "
        "Other kinds of tokenizers are not supported.");
    CHECK(contains(
        changed([](auto& c) { c.pre = "qwen2"; }),
        "unknown splitting pattern (found \"qwen2\", expected one of gpt-2, smollm, llama-bpe) at key "
        "\"tokenizer.ggml.pre\""));
    CHECK(contains(changed([](auto& c) { c.tokens.clear(); }), "no pieces"));
    CHECK(
        contains(changed([](auto& c) { c.token_type.pop_back(); }), "arrays of different sizes (found 259"));
    CHECK(contains(changed([](auto& c) { c.token_type[5] = 0; }), "unknown type of a piece (found 0"));
    CHECK(contains(changed([](auto& c) { c.token_type[5] = 6; }), "unknown type of a piece (found 6"));
    CHECK(contains(changed([](auto& c) { c.merges = {"a  b"}; }), "wrong merge"));
    CHECK(contains(changed([](auto& c) { c.merges = {"a b", "x y"}; }), "at merge 1"));
    CHECK(contains(
        changed([](auto& c) { c.bos_token_id = 260; }),
        "id outside the vocabulary (found 260, expected 0 to 259) at key \"tokenizer.ggml.bos_token_id\""));
    CHECK(contains(changed([](auto& c) { c.eos_token_id = -2; }), "found -2"));
    CHECK(changed([](auto& c) { c.eos_token_id = 0xFFFFFFFF; }) == "no error");
    v = spaced();
    CHECK(contains(changed([](auto& c) { c.scores.pop_back(); }), "arrays of different sizes"));
    CHECK(contains(changed([](auto& c) { c.scores[2] = std::nanf(""); }), "wrong score"));
    CHECK(contains(changed([](auto& c) { c.tokens[4] = "<0x-1>"; }), "wrong byte piece"));
    CHECK(contains(changed([](auto& c) { c.tokens.back() = std::string(257, 'a'); }), "found 257 bytes"));
  }
}
