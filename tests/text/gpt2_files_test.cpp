// SPDX-License-Identifier: Apache-2.0
#include "pesc/text/gpt2_files.hpp"

#include <cstdint>
#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "support/data.hpp"
#include "support/message_of.hpp"
#include "text/tokenizer_files.hpp"

using pesc::gpt2_files;
using support::contains;
using ids = std::vector<std::int32_t>;

namespace {

pesc::json vocab(const std::vector<std::string>& pieces) {
  return *support::byte_level_json(pieces, {}).find("model")->find("vocab");
}

std::string refusal(const pesc::json& pieces, std::string_view merges) {
  return support::message_of(
      [&] { static_cast<void>(gpt2_files::from("vocab.json", pieces, "merges.txt", merges)); });
}

std::string file_text(const std::filesystem::path& path) {
  const auto bytes = pesc::read_file(path.string());
  return std::string{pesc::as_text(bytes)};
}

}  // namespace

TEST_SUITE("text/gpt2_files") {
  TEST_CASE("pieces and pairs; a version line and line ends of any kind") {
    const auto pieces = vocab({"ab", "Ġab", "<|endoftext|>"});
    for (const char* merges : {"#version: 0.2\na b\nĠ ab\n", "a b\r\nĠ ab", "\na b\n\nĠ ab\n\n"}) {
      const auto t = gpt2_files::from("vocab.json", pieces, "merges.txt", merges);
      CHECK(t.encode("ab ab") == ids{256, 257});
      CHECK(t.encode("a<|endoftext|>") == ids{'a', 258});
      CHECK(t.eos() == 258);
      CHECK_FALSE(t.add_bos());
      CHECK(t.decode(ids{257, 258, 256}) == " abab");
    }
  }

  TEST_CASE("the file of pairs lies beside") {
    CHECK(gpt2_files::merges_beside("m/vocab.json") == "m/merges.txt");
    CHECK(gpt2_files::merges_beside("gpt2_vocab.json") == "gpt2_merges.txt");
    CHECK(gpt2_files::merges_beside("m/encoder.json") == "m/merges.txt");
    CHECK(gpt2_files::merges_beside("encoder.json") == "merges.txt");
  }

  TEST_CASE("damaged files are refused with their place") {
    CHECK(contains(
        refusal(vocab({"ab"}), "a b\na c\n"),
        "vocab.json: merge of an unknown piece (found \"ac\", expected a piece of the vocabulary) at "
        "merges.txt line 2"));
    CHECK(contains(refusal(vocab({"ab"}), "a b c\n"), "wrong merge (found \"a b c\""));
    CHECK(
        contains(refusal(support::from_text(R"({"a":0,"b":2})"), ""), "id outside the vocabulary (found 2"));
    CHECK(contains(refusal(support::from_text(R"({"a":0,"b":0})"), ""), "duplicate id"));
    CHECK(contains(refusal(support::from_text(R"({"a":2147483648})"), ""), "found 2147483648"));
    CHECK(contains(refusal(support::from_text(R"({"a":"b"})"), ""), "wrong id (found a string"));
    CHECK(contains(refusal(support::from_text("[]"), ""), "no vocabulary (found a list"));
    CHECK(contains(refusal(support::from_text(R"({"a":0})"), ""), "not all 256 byte pieces"));
  }

  TEST_CASE("GPT-2's own files give the ids of its reference") {
    const auto root = support::external_data("tokenizer");
    if (!root) PESC_SKIP("no data folder tokenizer");
    const auto t =
        gpt2_files::load((*root / "gpt2_vocab.json").string(), (*root / "gpt2_merges.txt").string());
    CHECK(t.size() == 50257);
    const std::string input = file_text(*root / "gpt2_reference.inp");
    std::istringstream lines(file_text(*root / "gpt2_reference.out"));
    const std::string mark = "\n__ggml_vocab_test__\n";
    std::string line;
    for (std::size_t at = 0; std::getline(lines, line);) {
      const std::size_t end = std::min(input.find(mark, at), input.size());
      const std::string text = input.substr(at, end - at);
      at = std::min(end + mark.size(), input.size());
      ids expected;
      std::istringstream numbers(line);
      for (std::int32_t id = 0; numbers >> id;) expected.push_back(id);
      CAPTURE(text);
      CHECK(t.encode(text) == expected);
      CHECK(t.decode(expected) == text);
    }
  }
}
