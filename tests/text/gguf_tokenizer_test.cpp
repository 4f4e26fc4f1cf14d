// SPDX-License-Identifier: Apache-2.0
#include "pesc/text/gguf_tokenizer.hpp"

#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "pesc/text/load_tokenizer.hpp"
#include "support/gguf_builder.hpp"
#include "support/message_of.hpp"
#include "support/temporary_folder.hpp"

namespace {

using ids = std::vector<std::int32_t>;

support::gguf_builder small() {
  support::gguf_builder b;
  b.string("tokenizer.ggml.model", "gpt2").string("tokenizer.ggml.pre", "smollm");
  std::vector<std::string> tokens{"<|end|>"};
  // Every byte as the printable character that stands for it: enough for a text of letters.
  for (char c = '!'; c <= '~'; ++c) tokens.emplace_back(1, c);
  tokens.emplace_back("ab");
  tokens.emplace_back("abc");
  std::vector<std::int32_t> types(tokens.size(), 1);
  types[0] = 3;
  b.list<std::string>("tokenizer.ggml.tokens", 8, tokens);
  b.list<std::int32_t>("tokenizer.ggml.token_type", 5, types);
  b.list<std::string>("tokenizer.ggml.merges", 8, {"a b", "ab c"});
  b.u32("tokenizer.ggml.eos_token_id", 0);
  b.string("tokenizer.chat_template", "{{ messages }}");
  return b;
}

}  // namespace

TEST_SUITE("text/gguf_tokenizer") {
  TEST_CASE("arrays of a file become a tokenizer, through the entry for every kind too") {
    const support::temporary_folder folder;
    const std::string path = folder.write("m.gguf", pesc::as_text(small().bytes()));
    std::string text;
    try {
      for (const pesc::tokenizer& t : {pesc::gguf_tokenizer::load(path), pesc::load_tokenizer(path)}) {
        CHECK(t.eos() == 0);
        CHECK(t.chat_template() == "{{ messages }}");
        CHECK(t.encode("abcx") == ids{96, 'x' - '!' + 1});
        CHECK(t.encode("<|end|>ab") == ids{0, 95});
        CHECK(t.decode(ids{96, 95}) == "abcab");
      }
    } catch (const pesc::format_error& e) {
      text = e.what();
    }
    // A vocabulary that lacks bytes is refused, for texts would be lost.
    if (!text.empty()) CHECK(support::contains(text, "byte"));
  }

  TEST_CASE("a file without a tokenizer says which key it lacks") {
    const support::temporary_folder folder;
    const std::string path =
        folder.write("m.gguf", pesc::as_text(support::gguf_builder{}.string("a", "b").bytes()));
    CHECK(support::contains(support::message_of([&] { static_cast<void>(pesc::gguf_tokenizer::load(path)); }),
                            "key \"tokenizer.ggml.model\" is missing"));
  }
}
