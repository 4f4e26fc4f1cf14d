// SPDX-License-Identifier: Apache-2.0
#include "pesc/text/sentencepiece_model.hpp"

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "support/message_of.hpp"
#include "text/tokenizer_files.hpp"

using namespace support;
using pesc::sentencepiece_model;
using ids = std::vector<std::int32_t>;

namespace {

const std::string letters = model_piece("▁", -3) + model_piece("a", -4) + model_piece("b", -5) +
                            model_piece("▁a", -1) + model_piece("ab", -2);
constexpr std::int32_t sp = 259, a = 260, b = 261, sp_a = 262, ab = 263;

std::string good() { return model_start() + letters + model_specs(); }

std::string refusal(const std::string& bytes) {
  return message_of([&] { static_cast<void>(sentencepiece_model::parse("t.model", bytes)); });
}

}  // namespace

TEST_SUITE("text/sentencepiece_model") {
  TEST_CASE("scores decide, one space goes before a text, and it is dropped again") {
    const auto t = sentencepiece_model::parse("t.model", good());
    CHECK(t.size() == 264);
    CHECK(t.bos() == 1);
    CHECK(t.eos() == 2);
    CHECK(t.unk() == 0);
    CHECK(t.add_bos());
    CHECK(t.encode("a") == ids{1, sp_a});
    CHECK(t.encode("ab") == ids{1, sp_a, b});
    CHECK(t.encode("bab") == ids{1, sp, b, ab});
    CHECK(t.encode(" a") == ids{1, sp, sp_a});
    CHECK(t.encode("▁a") == t.encode(" a"));
    CHECK(t.encode("é", {.bos = false}) == ids{sp, 3 + 0xC3, 3 + 0xA9});
    for (const char* text : {"", " ", "  a b ", "é中😀", "\xFF", "\n", "<s>"})
      CHECK(t.decode(t.encode(text)) == text);
    CHECK(t.decode(ids{a, 0, b}) == "a ⁇ b");
    CHECK(t.find_mark("<s>") == 1);
  }

  TEST_CASE("marks that a text names are text, unless they are wanted") {
    const auto t = sentencepiece_model::parse("t.model", good());
    CHECK(t.encode("<s>", {.bos = false}) == ids{sp, 3 + '<', 3 + 's', 3 + '>'});
    CHECK(t.encode("a</s>", {.bos = false, .marks = pesc::mark_rule::ids}) == ids{sp_a, 2});
  }

  TEST_CASE("user-defined pieces are taken whole") {
    const auto t = sentencepiece_model::parse("t.model", model_start() + letters + model_piece("ba", 0, 4) +
                                                             model_piece("▁▁", 0, 4) + model_specs());
    CHECK(t.encode("aba", {.bos = false}) == ids{sp_a, 264});
    CHECK(t.encode("a  b", {.bos = false}) == ids{sp_a, 265, b});
    CHECK(t.decode(t.encode("a   b ba")) == "a   b ba");
  }

  TEST_CASE("other ids and names of marks, without prefix") {
    const auto bytes = model_piece("a", 0) + model_piece("<e>", 0, 3) + model_piece("<u>", 0, 2) +
                       proto_text(2, proto_number(3, 2) + proto_number(41, ~std::uint64_t{0}) +
                                         proto_number(42, 1) + proto_text(44, "?")) +
                       proto_text(3, proto_number(3, 0) + proto_number(4, 0)) + proto_number(9, 1);
    const auto t = sentencepiece_model::parse("t.model", bytes);
    CHECK(t.bos() == -1);
    CHECK_FALSE(t.add_bos());
    CHECK(t.eos() == 1);
    CHECK(t.unk() == 2);
    CHECK(t.encode("axxa") == ids{0, 2, 0});
    CHECK(t.decode(ids{0, 2}) == "a?");
  }

  TEST_CASE("pieces that cannot be are refused with their number") {
    const auto with = [](const std::string& piece) { return refusal(model_start() + piece + model_specs()); };
    CHECK(with(model_piece("", 0)) ==
          "t.model: wrong length of a piece (found 0 bytes, expected 1 to 256) at piece 259");
    CHECK(contains(with(model_piece(std::string(257, 'a'), 0)), "found 257 bytes"));
    CHECK(contains(with(model_piece("a", std::nanf(""))), "wrong score (found NaN or infinity"));
    CHECK(contains(with(model_piece("<s>", 0)), "duplicate piece (found \"<s>\""));
    CHECK(contains(with(model_piece("<0x-1>", 0, 6)), "wrong byte piece (found \"<0x-1>\""));
    CHECK(contains(with(model_piece("x", 0, 5)), "unsupported type of a piece (found 5 (unused)"));
    CHECK(contains(with(model_piece("x", 0, 7)), "unsupported type of a piece (found 7"));
    CHECK(contains(with(model_piece("x", 0, 2)), "two unknown pieces (found ids 0 and 259"));
    CHECK(contains(refusal(model_specs()), "no pieces"));
    CHECK(contains(refusal(""), "no pieces"));
    CHECK(contains(refusal(model_piece("a", 0) + model_specs()),
                   "id outside the vocabulary (found 1, expected 0 to 0)"));
    CHECK(contains(
        refusal(model_piece("a", 0) + model_piece("<s>", 0, 3) + model_piece("</s>", 0, 3) + model_specs()),
        "no unknown piece and not all 256 byte pieces"));
  }

  TEST_CASE("settings that are not supported are refused by name") {
    const auto trainer = [](const std::string& fields) {
      return refusal(model_start() + proto_text(2, fields) + proto_text(3, proto_number(4, 0)));
    };
    CHECK(contains(trainer(""),
                   "unsupported model type (found 1 (unigram), expected 2 (BPE)) at key "
                   "\"trainer_spec.model_type\""));
    CHECK(contains(trainer(proto_number(3, 99)), "unsupported model type (found 99"));
    CHECK(contains(trainer(proto_number(3, 2) + proto_number(24, 1)), "treat_whitespace_as_suffix"));
    CHECK(trainer(proto_number(3, 2)) == "no error");
    const auto normalizer = [](const std::string& fields, unsigned field = 3) {
      return refusal(model_start() + model_specs() + proto_text(field, fields));
    };
    CHECK(contains(normalizer(proto_text(1, "nmt_nfkc") + proto_text(2, "abc") + proto_number(4, 0)),
                   "unsupported normalisation (found \"nmt_nfkc\", expected identity)"));
    CHECK(contains(normalizer(""), "normalizer_spec.remove_extra_whitespaces"));
    CHECK(
        contains(normalizer(proto_number(4, 0) + proto_number(5, 0)), "normalizer_spec.escape_whitespaces"));
    CHECK(contains(normalizer(proto_text(2, "abc"), 5), "denormalizer_spec.precompiled_charsmap"));
    CHECK(normalizer("", 5) == "no error");
    CHECK(contains(refusal(model_start() + proto_text(2, proto_number(3, 2))), "key \"normalizer_spec\""));
  }

  TEST_CASE("every cut of a good file is refused or reads") {
    const std::string whole = model_piece("<unk>", 0, 2) + letters + model_specs();
    REQUIRE(refusal(model_start() + letters + model_specs()) == "no error");
    for (std::size_t size = 0; size < whole.size(); ++size) {
      const std::string message = refusal(whole.substr(0, size));
      CHECK((message == "no error" || message.starts_with("t.model: ")));
    }
    CHECK(contains(refusal("version https://git-lfs.github.com/spec/v1\n"), "Git LFS pointer"));
  }
}
