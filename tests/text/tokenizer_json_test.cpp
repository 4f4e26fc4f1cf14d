// SPDX-License-Identifier: Apache-2.0
#include "pesc/text/tokenizer_json.hpp"

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "support/data.hpp"
#include "support/message_of.hpp"
#include "text/tokenizer_files.hpp"

using pesc::json;
using pesc::tokenizer;
using support::byte_level_json;
using support::contains;
using support::from_text;
using support::json_layout;
using support::spaced_json;
using ids = std::vector<std::int32_t>;

namespace {

tokenizer load(const json& value) { return pesc::tokenizer_json::parse("t.json", to_string(value)); }

std::string refusal(const json& value) {
  return support::message_of([&] { static_cast<void>(load(value)); });
}

/// The value with another value under a key, or under a key of "model".
json with(json value, const char* key, const char* text) { return value.set(key, from_text(text)); }
json with_model(json value, const char* key, const char* text) {
  json model = *value.find("model");
  model.set(key, from_text(text));
  return value.set("model", model);
}

const json& bytes() {
  static const json value = byte_level_json({"he", "hel", "Ġh", "ll"}, {"h e", "he l", "Ġ h", "l l"});
  return value;
}
const json& spaced(json_layout layout = json_layout::first) {
  static std::vector<json> made;
  if (made.empty())
    for (const auto l : {json_layout::first, json_layout::always, json_layout::never, json_layout::older})
      made.push_back(spaced_json({"▁", "a", "b", "▁a", "ab"}, {"▁ a", "a b"}, l));
  return made[static_cast<std::size_t>(layout)];
}
constexpr std::int32_t sp = 259, a = 260, b = 261, sp_a = 262;

}  // namespace

TEST_SUITE("text/tokenizer_json") {
  TEST_CASE("byte-level: ranks decide, spaces go with words, every text comes back") {
    const tokenizer t = load(bytes());
    CHECK(t.size() == 260);
    CHECK(t.encode("hell") == ids{257, 'l'});
    CHECK(t.encode("x hh") == ids{'x', 258, 'h'});
    CHECK(t.encode("ll") == ids{259});
    CHECK_FALSE(t.add_bos());
    std::string all;
    for (int c = 0; c < 256; ++c) all += static_cast<char>(c);
    for (const std::string& text :
         {std::string{}, std::string(" "), all, std::string("\xE2\x82"), std::string("é中😀 ▁ Ġ\u200B\u3000")})
      CHECK(t.decode(t.encode(text)) == text);
  }

  TEST_CASE("merges are texts or pairs") {
    const tokenizer pairs =
        load(with_model(bytes(), "merges", R"([["h","e"],["he","l"],["Ġ","h"],["l","l"]])"));
    for (const char* text : {"hell", "x hh", "llhe"}) CHECK(pairs.encode(text) == load(bytes()).encode(text));
  }

  TEST_CASE("ignore_merges takes a whole piece as it is") {
    const json value = byte_level_json({"ab", "abc"}, {"a b"});
    CHECK(load(value).encode("abc") == ids{256, 'c'});
    CHECK(load(with_model(value, "ignore_merges", "true")).encode("abc abcd") ==
          ids{257, ' ', 256, 'c', 'd'});
  }

  TEST_CASE("splitting steps: Digits, and the pattern of Llama 3") {
    const json value = byte_level_json({"12", "1 "}, {"1 2"});
    CHECK(load(value).encode("12") == ids{256});
    const char* digits = R"({"type":"Sequence","pretokenizers":[{"type":"Digits","individual_digits":true},
                             {"type":"ByteLevel","add_prefix_space":false,"use_regex":true}]})";
    CHECK(load(with(value, "pre_tokenizer", digits)).encode("12") == ids{'1', '2'});
    const char* llama = R"({"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":
      "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},
      "behavior":"Isolated","invert":false},{"type":"ByteLevel","add_prefix_space":false,"use_regex":false}]})";
    const json llama_json = with(value, "pre_tokenizer", llama);
    CHECK(load(llama_json).encode("0012") == ids{'0', '0', '1', '2'});
    CHECK(load(llama_json).encode("12") == ids{256});
  }

  TEST_CASE("Metaspace: where the prefix goes") {
    const tokenizer first = load(spaced());
    CHECK(first.encode("a") == ids{1, sp_a});
    CHECK(first.encode(" a") == ids{1, sp_a});
    CHECK(first.encode("▁a") == ids{1, sp_a});
    CHECK(first.encode("  a") == ids{1, sp, sp_a});
    CHECK(first.encode("a</s>a") == ids{1, sp_a, 2, a});
    CHECK(first.encode("</s>a") == ids{1, 2, a});
    CHECK(first.encode("a", {.dummy_prefix = false}) == ids{1, a});
    const tokenizer always = load(spaced(json_layout::always));
    CHECK(always.encode("a</s>a</s> a") == ids{1, sp_a, 2, sp_a, 2, sp_a});
    CHECK(load(spaced(json_layout::never)).encode("a</s>a") == ids{1, a, 2, a});
    const tokenizer older = load(spaced(json_layout::older));
    CHECK(older.encode("a</s>a</s> a") == ids{1, sp_a, 2, sp_a, 2, sp, sp_a});
    CHECK(older.encode(" ") == ids{1, sp, sp});
    for (const auto& t : {first, always, older}) CHECK(t.decode(t.encode("a b  ab")) == "a b  ab");
  }

  TEST_CASE("Metaspace that splits keeps words apart") {
    const json value = spaced_json({"▁", "a", "a▁"}, {"a ▁"}, json_layout::first);
    CHECK(load(value).encode("a a", {.bos = false}) == ids{259, 261, 260});
    const char* split = R"({"type":"Metaspace","replacement":"▁","prepend_scheme":"first"})";
    CHECK(load(with(value, "pre_tokenizer", split)).encode("a a", {.bos = false}) == ids{259, 260, 259, 260});
  }

  TEST_CASE("marks in a text are ids, or text where it is not to be trusted") {
    const tokenizer t = load(spaced());
    CHECK(t.encode("<s>a") == ids{1, 1, a});
    CHECK(t.decode(t.encode("<s>a", {.marks = pesc::mark_rule::text})) == "<s>a");
    CHECK(t.encode("<s>", {.bos = false, .marks = pesc::mark_rule::text}) ==
          ids{sp, 3 + '<', 3 + 's', 3 + '>'});
    CHECK(t.find_mark("</s>") == 2);
    CHECK(t.find_mark("<none>") == -1);
    const pesc::text_range second[] = {{3, 6}};
    CHECK(t.encode("<s><s>", second, {.bos = false}) == ids{1, 3 + '<', 3 + 's', 3 + '>'});
    const pesc::text_range half[] = {{2, 3}};
    CHECK(t.encode("<s>", half, {.bos = false}) == ids{sp, 3 + '<', 3 + 's', 3 + '>'});
    CHECK(t.decode(ids{1, sp_a, 2}, {.skip_control = false}) == "<s> a</s>");
  }

  TEST_CASE("added tokens beyond the model, in the text and in the normalised text") {
    const char* tokens = R"([{"id":1,"content":"<s>","special":true,"normalized":true},
      {"id":264,"content":"b b","special":false,"normalized":false,"rstrip":true},
      {"id":265,"content":"ba","special":false,"normalized":true}])";
    const tokenizer t = load(with(spaced(json_layout::older), "added_tokens", tokens));
    CHECK(t.size() == 266);
    CHECK(t.encode("b b  a", {.bos = false}) == ids{264, sp_a});
    CHECK(t.encode("aba", {.bos = false}) == ids{sp_a, b, a});
    CHECK(t.encode("a ba", {.bos = false}) == ids{sp_a, 265});
    CHECK(t.decode(ids{264, 265}) == "b bba");
    const tokenizer late = load(with(spaced(), "added_tokens", tokens));
    CHECK(late.encode("aba", {.bos = false}) == ids{sp_a, 265});
    CHECK(late.encode("ba", {.bos = false}) == ids{265});
    CHECK(t.encode("<s>", {.bos = false}) == ids{1});
    CHECK(t.encode("a <s>", {.bos = false}) == ids{sp_a, 1});
    CHECK(t.encode("a<s>", {.bos = false}).size() == 4);
    CHECK(t.find_mark("<s>") == 1);
    const pesc::text_range mark[] = {{2, 5}};
    CHECK(t.encode("a <s>", mark, {.bos = false}).size() == 5);
    CHECK(t.piece(264) == "b b");
  }

  TEST_CASE("the marks around a text") {
    CHECK(load(spaced()).add_bos());
    CHECK(load(spaced()).bos() == 1);
    CHECK(load(spaced()).eos() == 2);
    CHECK(load(spaced()).unk() == 0);
    const tokenizer none = load(with(spaced(), "post_processor", "null"));
    CHECK_FALSE(none.add_bos());
    CHECK(none.bos() == 1);
    CHECK(none.encode("a") == ids{sp_a});
    const char* both =
        R"({"type":"Sequence","processors":[{"type":"ByteLevel"},{"type":"TemplateProcessing","single":[
      {"SpecialToken":{"id":"<s>"}},{"Sequence":{"id":"A"}},{"SpecialToken":{"id":"<unk>"}}]}]})";
    CHECK(load(with(spaced(), "post_processor", both)).eos() == 0);
  }

  TEST_CASE("without bytes, characters without a piece are unknown, together or each alone") {
    json value = from_text(R"({"model":{"type":"BPE","vocab":{"<unk>":0,"▁":1,"a":2},"merges":[],
      "unk_token":"<unk>"},"pre_tokenizer":{"type":"Metaspace","replacement":"▁","prepend_scheme":"never"},
      "decoder":{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},
      {"type":"Fuse"}]}})");
    CHECK(load(value).encode("axya") == ids{2, 0, 0, 2});
    CHECK(load(with_model(value, "fuse_unk", "true")).encode("axya") == ids{2, 0, 2});
    CHECK(contains(refusal(with_model(value, "unk_token", "null")), "no unknown piece and not all 256 byte"));
  }

  TEST_CASE("damaged vocabularies are refused") {
    const auto vocab = [](const char* text) { return with_model(bytes(), "vocab", text); };
    CHECK(refusal(vocab(R"({"a":0,"b":2})")) ==
          "t.json: id outside the vocabulary (found 2, expected 0 to 1) at piece \"b\". Ids must be without "
          "holes.");
    CHECK(contains(refusal(vocab(R"({"a":0,"b":0})")),
                   "duplicate id (found \"b\" and \"a\", expected one piece) at id 0"));
    CHECK(contains(refusal(vocab(R"({"a":-1})")), "id outside the vocabulary (found -1"));
    CHECK(contains(refusal(vocab(R"({"a":2147483648})")), "found 2147483648, expected 0 to 0"));
    CHECK(contains(refusal(vocab(R"({"a":1e0})")), "wrong id (found a number, expected an integer)"));
    CHECK(contains(refusal(vocab("[]")), "key \"model.vocab\" is a list, expected an object"));
    CHECK(contains(refusal(vocab("{}")), "merge of an unknown piece (found \"h\""));
    const auto added = [](const char* text) { return refusal(with(bytes(), "added_tokens", text)); };
    CHECK(contains(added(R"([{"id":400,"content":"<x>"}])"), "found 400, expected 0 to 260"));
    CHECK(contains(added(R"([{"id":5,"content":"<x>"}])"), "duplicate id (found \"<x>\" and "));
    CHECK(contains(added(R"([{"id":260,"content":"<x>"},{"id":260,"content":"<x>"}])"), "duplicate id"));
    CHECK(contains(added(R"([{"id":260,"content":"<x>"},{"id":262,"content":"<y>"},{"id":0,"content":"Ā"}])"),
                   "id outside the vocabulary (found 262, expected 0 to 261)"));
    CHECK(contains(added(R"([{"id":260}])"), "\"added_tokens.content\" is missing"));
    CHECK(contains(added(R"([{"id":260,"content":""}])"), "found 0 bytes, expected 1 to 512"));
    CHECK(contains(added(R"([{"id":260,"content":"<x>","single_word":true}])"), "unsupported added token"));
    CHECK(contains(added(R"([3])"), "expected an object"));
    json bad = spaced_json({"<0x-1>"}, {}, json_layout::first);
    CHECK(contains(refusal(bad),
                   "wrong byte piece (found \"<0x-1>\", expected <0x00> to <0xFF>) at piece 259"));
    CHECK(contains(refusal(with_model(spaced(), "vocab", R"({"a":0,"<s>":1,"</s>":2,"<unk>":0})")),
                   "duplicate id"));
  }

  TEST_CASE("damaged merges are refused with their number") {
    const auto merges = [](const char* text) { return refusal(with_model(bytes(), "merges", text)); };
    CHECK(contains(merges(R"(["h e","q z"])"), "merge of an unknown piece (found \"qz\""));
    CHECK(contains(merges(R"(["h e","q z"])"), "at merge 1"));
    CHECK(contains(merges(R"(["h  e"])"), "wrong merge (found \"h  e\""));
    CHECK(contains(merges(R"([["h"]])"), "wrong merge (found a list, expected \"a b\" or [\"a\", \"b\"])"));
    CHECK(contains(merges(R"([["h",1]])"), "wrong merge"));
    CHECK(contains(merges(R"([7])"), "wrong merge (found an integer"));
    CHECK(contains(merges("{}"), "key \"model.merges\" is an object, expected a list"));
  }

  TEST_CASE("unknown steps and models are refused by name") {
    CHECK(refusal(with_model(bytes(), "type", "\"Unigram\"")) ==
          "t.json: unknown model type (found \"Unigram\", expected BPE) at key \"model.type\". "
          "Other kinds of tokenizers are not supported.");
    CHECK(contains(refusal(with_model(bytes(), "dropout", "0.1")), "unsupported dropout (found 0.1"));
    CHECK(contains(refusal(with_model(bytes(), "end_of_word_suffix", "\"</w>\"")),
                   "unsupported end_of_word_suffix (found \"</w>\""));
    CHECK(refusal(with_model(with_model(bytes(), "end_of_word_suffix", "\"\""), "dropout", "null")) ==
          "no error");
    CHECK(contains(refusal(with(bytes(), "normalizer", R"({"type":"NFC"})")),
                   "unknown normalizer (found NFC, expected none, Prepend + Replace or Replace)"));
    CHECK(contains(refusal(with(bytes(), "pre_tokenizer", R"({"type":"Whitespace"})")),
                   "unknown pre_tokenizer (found Whitespace"));
    CHECK(contains(refusal(with(bytes(), "pre_tokenizer", "null")), "unknown pre_tokenizer (found none"));
    CHECK(contains(refusal(with(bytes(), "pre_tokenizer", R"({"type":"ByteLevel","add_prefix_space":true})")),
                   "unknown ByteLevel (found true, expected false)"));
    CHECK(contains(refusal(with(bytes(), "decoder", R"({"type":"WordPiece"})")),
                   "unknown decoder (found WordPiece, expected ByteLevel)"));
    CHECK(contains(refusal(with(spaced(), "decoder", R"({"type":"Metaspace"})")),
                   "unknown decoder (found Metaspace"));
    CHECK(contains(refusal(with(spaced(), "decoder", "null")), "unknown decoder (found none"));
    CHECK(contains(refusal(with(bytes(), "post_processor", R"({"type":"BertProcessing"})")),
                   "unknown post_processor (found BertProcessing"));
    const char* split = R"({"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"\\s+"},
      "behavior":"Isolated"},{"type":"ByteLevel","add_prefix_space":false,"use_regex":false}]})";
    CHECK(contains(refusal(with(bytes(), "pre_tokenizer", split)),
                   "unknown splitting pattern (found \"\\\\s+\", expected one of gpt-2, smollm, llama-bpe)"));
    CHECK(contains(refusal(with(spaced(), "post_processor", R"({"type":"TemplateProcessing","single":[
      {"SpecialToken":{"id":"<x>"}},{"Sequence":{"id":"A"}}]})")),
                   "unknown mark (found \"<x>\""));
    CHECK(contains(refusal(with(spaced(), "post_processor", R"({"type":"TemplateProcessing","single":[
      {"SpecialToken":{"id":"<s>"}},{"SpecialToken":{"id":"<s>"}},{"Sequence":{"id":"A"}}]})")),
                   "unknown template"));
    CHECK(contains(refusal(with_model(spaced(), "byte_fallback", "false")),
                   "byte_fallback and decoder do not agree"));
    CHECK(contains(refusal(with_model(bytes(), "byte_fallback", "true")), "false with ByteLevel"));
    CHECK(contains(refusal(with(spaced(), "pre_tokenizer", R"({"type":"Metaspace","replacement":"_"})")),
                   "unknown Metaspace (found \"_\""));
    CHECK(contains(refusal(from_text("{}")), "key \"model\" is missing"));
    CHECK(contains(support::message_of([] { static_cast<void>(pesc::tokenizer_json::parse("t", "[")); }),
                   "t: byte"));
  }

  TEST_CASE("a word of ten thousand letters takes a moment") {
    std::vector<std::string> pieces, merges;
    for (int n = 2; n <= 512; n *= 2) {
      const std::string half(static_cast<std::size_t>(n / 2), 'a');
      pieces.push_back(half + half);
      merges.push_back(half + ' ' + half);
    }
    const tokenizer t = load(byte_level_json(pieces, merges));
    const auto start = std::chrono::steady_clock::now();
    CHECK(t.encode(std::string(10'240, 'a')).size() == 20);
    CHECK(t.encode(std::string(1 << 20, 'a')).size() == 2048);
    CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(20));
  }
}
