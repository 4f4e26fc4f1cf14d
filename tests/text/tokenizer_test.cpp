// SPDX-License-Identifier: Apache-2.0
#include "pesc/text/tokenizer.hpp"

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "support/message_of.hpp"

using pesc::piece_kind;
using pesc::tokenizer;
using ids = std::vector<std::int32_t>;

namespace {

struct scored {
  std::string text;
  float score;
};

/// Ids 0, 1, 2 are unknown, start and end; then, if wanted, the 256 bytes; then these pieces.
pesc::tokenizer_parts parts(const std::vector<scored>& pieces, bool bytes, std::vector<float>& scores) {
  pesc::tokenizer_parts out;
  out.name = "tok";
  out.unk = 0;
  out.bos = 1;
  out.eos = 2;
  scores.clear();
  const auto add = [&](const std::string& text, float score, piece_kind kind) {
    out.pieces.add(text, kind);
    scores.push_back(score);
  };
  add("<unk>", 0, piece_kind::unknown);
  add("<s>", 0, piece_kind::control);
  add("</s>", 0, piece_kind::control);
  constexpr char digits[] = "0123456789ABCDEF";
  for (unsigned b = 0; bytes && b < 256; ++b)
    add(std::string("<0x") + digits[b >> 4] + digits[b & 15] + ">", 0, piece_kind::byte);
  for (const scored& p : pieces) add(p.text, p.score, piece_kind::text);
  out.merges = pesc::merge_table::from_scores(out.pieces, scores);
  return out;
}

tokenizer make(const std::vector<scored>& pieces, bool bytes = true) {
  std::vector<float> scores;
  return tokenizer{parts(pieces, bytes, scores)};
}

/// Joins the best pair of texts until none is left, by looking at all of them each time.
ids slow_merge(const pesc::vocabulary& words, const std::vector<float>& scores, ids list) {
  for (;;) {
    int best = -1;
    std::int32_t best_id = -1;
    for (std::size_t i = 0; i + 1 < list.size(); ++i) {
      if (words.kind(list[i]) != piece_kind::text || words.kind(list[i + 1]) != piece_kind::text) continue;
      const std::int32_t id =
          words.find(std::string{words.piece(list[i])} + std::string{words.piece(list[i + 1])});
      if (id < 0) continue;
      if (best < 0 || scores[static_cast<std::size_t>(id)] > scores[static_cast<std::size_t>(best_id)]) {
        best = static_cast<int>(i);
        best_id = id;
      }
    }
    if (best < 0) return list;
    list[static_cast<std::size_t>(best)] = best_id;
    list.erase(list.begin() + best + 1);
  }
}

}  // namespace

TEST_SUITE("text/tokenizer") {
  TEST_CASE("the best pair joins first, the leftmost among equals") {
    const tokenizer t = make({{"a", 0}, {"b", 0}, {"ab", -1}, {"ba", -1}, {"aa", -2}});
    const pesc::encode_options bare{false, false, false};
    const std::int32_t a = 259, b = 260, ab = 261, ba = 262, aa = 263;
    CHECK(t.encode("aba", bare) == ids{ab, a});
    CHECK(t.encode("bab", bare) == ids{ba, b});
    CHECK(t.encode("aab", bare) == ids{a, ab});
    CHECK(t.encode("aaa", bare) == ids{aa, a});
    CHECK(t.encode("aaaa", bare) == ids{aa, aa});
    CHECK(t.encode("bb", bare) == ids{b, b});
  }

  TEST_CASE("the queue agrees with trying all pairs") {
    std::uint32_t state = 7;
    const auto random = [&](std::uint32_t n) {
      state = state * 1664525u + 1013904223u;
      return (state >> 8) % n;
    };
    for (int round = 0; round < 300; ++round) {
      std::vector<scored> pieces{{"a", 0}, {"b", 0}, {"c", 0}};
      for (int i = 0; i < 12; ++i) {
        std::string text;
        for (std::uint32_t n = 2 + random(4); n > 0; --n) text += static_cast<char>('a' + random(3));
        pieces.push_back({text, -static_cast<float>(random(8))});
      }
      std::vector<float> scores;
      const pesc::tokenizer_parts p = parts(pieces, true, scores);
      const tokenizer t{p};
      ids start;
      std::string text;
      for (std::uint32_t n = random(40); n > 0; --n) {
        text += static_cast<char>('a' + random(4));
        start.push_back(text.back() == 'd' ? 3 + 'd' : 259 + text.back() - 'a');
      }
      CAPTURE(text);
      CHECK(t.encode(text, {false, false, false}) == slow_merge(p.pieces, scores, start));
    }
  }

  TEST_CASE("marks and the prefix are added as asked") {
    const tokenizer t = make({{" ", 0}, {"a", 0}, {" a", -1}});
    CHECK(t.encode("a") == ids{1, 261});
    CHECK(t.encode("a", {true, true, true}) == ids{1, 261, 2});
    CHECK(t.encode("a", {false, false, false}) == ids{260});
    CHECK(t.encode("") == ids{1});
    CHECK(t.encode("", {false, true, true}) == ids{2});
    CHECK(t.bos() == 1);
    CHECK(t.eos() == 2);
    CHECK(t.unk() == 0);
    CHECK(t.is_control(1));
    CHECK_FALSE(t.is_control(259));
    CHECK(t.piece(261) == " a");
  }

  TEST_CASE("text that names a mark or a byte is text") {
    const tokenizer t =
        make({{"<", 0}, {"s", 0}, {">", 0}, {"<s", -1}, {"0", 0}, {"x", 0}, {"<0", -2}, {"<0x", -3}});
    const pesc::encode_options bare{false, false, false};
    CHECK(t.encode("<s>", bare) == ids{262, 261});
    CHECK(t.decode(t.encode("<0x41>", bare)) == "<0x41>");
  }

  TEST_CASE("what has no piece becomes its bytes, broken text too, and comes back") {
    const tokenizer t = make({{"a", 0}, {"é", 0}});
    CHECK(t.has_all_bytes());
    CHECK(t.encode("é€", {false, false, false}) == ids{260, 3 + 0xE2, 3 + 0x82, 3 + 0xAC});
    std::string all;
    for (int b = 0; b < 256; ++b) all += static_cast<char>(b);
    for (const std::string& text :
         {all, std::string("é"), std::string(" "), std::string("  a"), std::string("\xE2\x82")})
      CHECK(t.decode(t.encode(text)) == text);
  }

  TEST_CASE("without bytes, neighbours without a piece share one unknown") {
    const tokenizer t = make({{"a", 0}, {" ", 0}}, false);
    CHECK_FALSE(t.has_all_bytes());
    CHECK(t.encode("xyaz") == ids{1, 4, 0, 3, 0});
    CHECK(t.decode(ids{0}) == "<unk>");
  }

  TEST_CASE("a vocabulary that cannot express every text is refused") {
    pesc::tokenizer_parts p;
    p.name = "tok";
    p.pieces.add("a", piece_kind::text);
    CHECK(support::contains(support::message_of([&] { tokenizer{p}; }),
                            "tok: the vocabulary has no unknown piece"));
  }

  TEST_CASE("decoding drops the prefix of a text, and only that") {
    const tokenizer t = make({{" ", 0}, {"a", 0}, {" a", -1}});
    CHECK(t.decode(ids{1, 261, 261}) == "a a");
    CHECK(t.decode(ids{261}) == "a");
    CHECK(t.decode(ids{261, 1, 261}) == "aa");
    CHECK(t.decode(ids{261, 2, 261}) == "a a");
    CHECK(t.decode(ids{1, 261, 2}, {false, true}) == "<s>a</s>");
    CHECK(t.decode(ids{261}, {true, false}) == " a");
    CHECK(t.decode(ids{1, 3 + ' ', 260}) == "a");
    CHECK(t.decode_piece(261) == " a");
    CHECK(t.decode_piece(261, true) == "a");
    CHECK(t.decode_piece(3 + 'x') == "x");
    CHECK(t.decode_piece(1).empty());
  }

  TEST_CASE("marks can be others, and a start is put where the rules say so") {
    tokenizer t = make({{"a", 0}});
    CHECK(t.add_bos());
    CHECK(t.kind(0) == piece_kind::unknown);
    t.set_marks(2, -1);
    CHECK(t.encode("", {true, true}) == ids{2});
    t.set_marks(-1, 1);
    CHECK_FALSE(t.add_bos());
    CHECK(t.encode("", {true, true}) == ids{1});
    CHECK(support::contains(support::message_of<pesc::shape_error>([&] { t.set_marks(0, 260); }),
                            "marks 0 and 260 are outside the vocabulary of 260 pieces"));
    std::vector<float> scores;
    auto p = parts({{"a", 0}}, true, scores);
    p.add_bos = false;
    CHECK(tokenizer{p}.encode("a", {true, false, false}) == ids{259});
    CHECK(tokenizer{p}.find_mark("<s>") == 1);
    t.set_chat_template("x");
    CHECK(t.chat_template() == "x");
  }

  TEST_CASE("stretches outside the text are an error") {
    const tokenizer t = make({{"a", 0}});
    const auto says = [&](std::size_t begin, std::size_t end) {
      const pesc::text_range range[] = {{begin, end}};
      return support::message_of<pesc::shape_error>([&] { static_cast<void>(t.encode("abc", range)); });
    };
    CHECK(says(0, 3) == "no error");
    CHECK(says(3, 3) == "no error");
    CHECK(support::contains(says(2, 4), "bytes 2 to 4 are outside the text of 3 bytes"));
    CHECK(support::contains(says(2, 1), "bytes 2 to 1 are outside"));
  }

  TEST_CASE("ids outside the vocabulary are an error") {
    const tokenizer t = make({{"a", 0}});
    for (const std::int32_t id : {-1, 260}) {
      const auto says = [&](auto action) {
        CHECK(support::contains(support::message_of<pesc::shape_error>(action),
                                "is outside the vocabulary of 260"));
      };
      says([&] { static_cast<void>(t.decode(ids{id})); });
      says([&] { static_cast<void>(t.decode_piece(id)); });
      says([&] { static_cast<void>(t.piece(id)); });
    }
  }

  TEST_CASE("the number of pieces is compared with the embedding") {
    const tokenizer t = make({{"a", 0}});
    t.expect_vocabulary(260);
    CHECK(support::message_of([&] { t.expect_vocabulary(512); }) ==
          "tok has 260 pieces, the embedding has 512 rows. Use the tokenizer that belongs to the model.");
  }

  TEST_CASE("a megabyte of equal letters takes a moment, not minutes") {
    std::vector<scored> pieces;
    for (int n = 1; n <= 512; n *= 2)
      pieces.push_back({std::string(static_cast<std::size_t>(n), 'a'), -float(n)});
    const tokenizer t = make(pieces);
    const auto start = std::chrono::steady_clock::now();
    CHECK(t.encode(std::string(1 << 20, 'a'), {false, false, false}).size() == 2048);
    CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(20));
  }
}
