// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "pesc/text/chat_template.hpp"
#include "pesc/text/gguf_vocabulary.hpp"
#include "text/tokenizer_files.hpp"

namespace {

/// A tokenizer with the marks of every template.
pesc::tokenizer make() {
  auto v = support::byte_level_gguf({"im"}, {"i m"});
  for (const auto name : pesc::chat_template::names)
    for (const auto mark : pesc::chat_template_named(name).marks())
      if (std::find(v.tokens.begin(), v.tokens.end(), mark) == v.tokens.end()) {
        v.tokens.emplace_back(mark);
        v.token_type.push_back(3);
      }
  return pesc::tokenizer_from_gguf(v, "fuzz");
}

}  // namespace

// What begins with a brace is compared with the known templates. Of anything else the first byte names a template, and
// the rest are messages: whatever stands in them, a conversation has the marks of its template and no other; text comes back.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string_view input{reinterpret_cast<const char*>(data), size};
  if (input.empty() || input[0] == '{') {
    try {
      static_cast<void>(pesc::chat_template_of(input, "fuzz"));
    } catch (const pesc::format_error&) {
    }
    return 0;
  }
  static const pesc::tokenizer t = make();
  const auto& names = pesc::chat_template::names;
  const auto form = pesc::chat_template_named(names[data[0] % names.size()]);
  input.remove_prefix(1);
  const std::size_t half = std::min(input.find('\n'), input.size());
  const std::string first{input.substr(0, half)}, second{input.substr(half)};
  const std::vector<pesc::chat_message> messages{{"system", first}, {"user", second}, {"assistant", first}},
      harmless{{"system", "a"}, {"user", "b"}, {"assistant", "c"}};
  const auto ids = encode_chat(t, form, messages);
  const auto marks = [&](const std::vector<std::int32_t>& list) {
    return std::count_if(list.begin(), list.end(), [&](std::int32_t id) { return t.is_control(id); });
  };
  if (marks(ids) != marks(encode_chat(t, form, harmless))) std::abort();
  if (t.decode(ids, {.skip_control = false}) != form.render(messages)) std::abort();
  return 0;
}
