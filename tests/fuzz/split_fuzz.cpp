// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "pesc/text/gguf_vocabulary.hpp"
#include "text/tokenizer_files.hpp"

namespace {

pesc::tokenizer make(const char* pattern) {
  auto v = support::byte_level_gguf({"Ġa", "aa", "aaaa", "Ġaa", "ĊĊ", "'s", "12"},
                                    {"Ġ a", "a a", "aa aa", "Ġ aa", "Ċ Ċ", "' s", "1 2"});
  v.pre = pattern;
  return pesc::tokenizer_from_gguf(v, "fuzz");
}

}  // namespace

// The parts of any bytes are the bytes, by every pattern, and a byte-level tokenizer gives them back.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using enum pesc::split_pattern;
  const std::string_view text{reinterpret_cast<const char*>(data), size};
  for (const auto pattern : {none, spaces, gpt2, smollm, llama_bpe}) {
    std::string joined;
    pesc::for_each_split(pattern, text, [&](std::string_view piece) {
      if (piece.empty()) std::abort();
      joined += piece;
    });
    if (joined != text) std::abort();
  }
  static const std::vector<pesc::tokenizer> tokenizers{make("gpt-2"), make("smollm"), make("llama-bpe")};
  for (const pesc::tokenizer& t : tokenizers) {
    const auto ids = t.encode(text);
    for (const std::int32_t id : ids)
      if (id < 0 || id >= t.size()) std::abort();
    if (t.decode(ids, {.skip_control = false}) != text) std::abort();
  }
  return 0;
}
