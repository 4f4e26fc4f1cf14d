// SPDX-License-Identifier: Apache-2.0
#include "pesc/text/llama2c_tokenizer.hpp"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include "support/data.hpp"
#include "support/message_of.hpp"
#include "support/temporary_folder.hpp"

using pesc::llama2c_tokenizer;
using support::contains;
using support::message_of;
using ids = std::vector<std::int32_t>;

namespace {

template <class T>
void append(std::string& out, T value) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof value);
  out.append(bytes, sizeof value);
}

std::string piece(const std::string& text, float score = 0) {
  std::string out;
  append(out, score);
  append(out, static_cast<std::int32_t>(text.size()));
  return out + text;
}

std::string file(std::int32_t longest, const std::vector<std::string>& pieces) {
  std::string out;
  append(out, longest);
  for (const std::string& p : pieces) out += p;
  return out;
}

std::string refusal(const std::string& bytes, pesc::index_t pieces = -1) {
  return message_of(
      [&] { static_cast<void>(llama2c_tokenizer::parse("tok.bin", pesc::as_bytes(bytes), pieces)); });
}

const std::vector<std::string> marks{piece("<unk>"), piece("<s>"), piece("</s>")};

}  // namespace

TEST_SUITE("text/llama2c_tokenizer") {
  TEST_CASE("the bundled tokenizer gives the published ids") {
    PESC_REQUIRE_DATA(path, "tok512.bin");
    const auto t = llama2c_tokenizer::load(path.string(), 512);
    CHECK(t.size() == 512);
    CHECK(t.has_all_bytes());
    CHECK(t.encode("Once upon a time, there was a cat.") ==
          ids{1, 403, 407, 261, 378, 432, 383, 286, 261, 280, 294, 426});
    CHECK(t.encode("x = 3 + 4\n") == ids{1, 410, 444, 410, 64, 410, 472, 410, 496, 410, 484, 13});
    CHECK(t.encode("") == ids{1});
    const ids story{1,   403, 407, 261, 378, 432, 383, 286, 261, 376, 298, 315, 421, 395,
                    317, 426, 338, 401, 396, 267, 337, 410, 408, 419, 292, 411, 322, 265,
                    282, 295, 433, 426, 385, 328, 432, 358, 394, 261, 370, 432, 352};
    const std::string text =
        "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One "
        "day, she saw a "
        "big, r";
    CHECK(t.decode(story) == text);
    std::string streamed;
    for (std::size_t i = 1; i < story.size(); ++i) streamed += t.decode_piece(story[i], i == 1);
    CHECK(streamed == text);
    for (const char* s : {" ", "  two", "tab\tand\nline", "é€😀", "\xFF\xC3", "<s>", "<0x0A>"})
      CHECK(t.decode(t.encode(s)) == s);
  }

  TEST_CASE("a tokenizer of another size than the embedding is refused with both numbers") {
    PESC_REQUIRE_DATA(path, "tok512.bin");
    CHECK(message_of([&] { static_cast<void>(llama2c_tokenizer::load(path.string(), 32000)); }) ==
          path.string() +
              " has 512 pieces, the embedding has 32000 rows. Use the tokenizer that belongs to the model.");
    CHECK(contains(message_of([&] { static_cast<void>(llama2c_tokenizer::load(path.string(), 400)); }),
                   "has 512 pieces, the embedding has 400 rows"));
  }

  TEST_CASE("a small file reads, and equal pieces are the first of them") {
    auto pieces = marks;
    pieces.push_back(piece("a"));
    pieces.push_back(piece(" "));
    pieces.push_back(piece("a"));
    pieces.push_back(piece(" a", -1));
    const auto bytes = file(5, pieces);
    const auto t = llama2c_tokenizer::parse("tok.bin", pesc::as_bytes(bytes), 7);
    CHECK(t.encode("a") == ids{1, 6});
    CHECK(t.encode("aa") == ids{1, 6, 3});
  }

  TEST_CASE("damaged files are refused with the byte and the piece") {
    auto with = [](const std::string& last, std::int32_t longest = 5) {
      auto pieces = marks;
      pieces.push_back(last);
      return file(longest, pieces);
    };
    CHECK(
        contains(refusal(""), "tok.bin: byte 0: the tokenizer ends before the length of its longest piece"));
    CHECK(contains(refusal("abc"), "tok.bin: byte 3: the tokenizer ends"));
    CHECK(contains(refusal(file(0, marks)), "byte 0: longest piece of 0 bytes, expected 1 to 256"));
    CHECK(contains(refusal(file(-7, marks)), "longest piece of -7 bytes"));
    CHECK(contains(refusal(file(1 << 30, marks)), "longest piece of 1073741824 bytes"));
    CHECK(
        contains(refusal(file(5, {marks[0]})), "tok.bin: the file has 1 pieces, expected at least unknown"));
    CHECK(contains(refusal(file(5, {})), "the file has 0 pieces"));
    CHECK(contains(refusal(with(piece("abcdef"))), "piece 3: length 6, expected 0 to 5"));
    std::string negative;
    append(negative, 0.0f);
    append(negative, std::int32_t{-1});
    CHECK(contains(refusal(with(negative)), "piece 3: length -1, expected 0 to 5"));
    std::string least;
    append(least, 0.0f);
    append(least, std::numeric_limits<std::int32_t>::min());
    CHECK(contains(refusal(with(least)), "piece 3: length -2147483648"));
    CHECK(contains(refusal(with(piece("a", std::nanf("")))), "piece 3: the score is not finite"));
    CHECK(contains(refusal(with(piece("abc").substr(0, 10))), "piece 3: the file ends inside it"));
    CHECK(contains(refusal(with(piece("abc").substr(0, 7))), "piece 3: the file ends inside it"));
    CHECK(contains(refusal("version https://git-lfs.github.com/spec/v1\noid sha256:1\n"), "Git LFS pointer"));
    CHECK(contains(refusal("<!DOCTYPE html><html>"), "web page"));
    CHECK(contains(message_of<pesc::io_error>([] { static_cast<void>(llama2c_tokenizer::load("none.bin")); }),
                   "there is no such file"));
  }

  TEST_CASE("every cut of a good file that is not between pieces is refused") {
    const std::string good = file(5, {marks[0], marks[1], marks[2], piece("abc")});
    for (std::size_t size = 0; size < good.size(); ++size) {
      if (size == good.size() - 11) continue;
      CHECK(refusal(good.substr(0, size)) != "no error");
    }
    CHECK(refusal(good) == "no error");
    CHECK(refusal(good.substr(0, good.size() - 11), 4) ==
          "tok.bin has 3 pieces, the embedding has 4 rows. Use the tokenizer that belongs to the model.");
  }
}
