// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "fuzz/mutation.hpp"
#include "pesc/text/sentencepiece_model.hpp"
#include "text/tokenizer_files.hpp"

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned seed) {
  fuzz::chooser choose{seed};
  if (choose.below(2) == 0 || size == 0) return LLVMFuzzerMutate(data, size, max_size);
  const std::string_view all{reinterpret_cast<const char*>(data), size};
  const std::size_t begin = 1 + std::min<std::size_t>(data[0] & 127, size - 1);
  return fuzz::replace_input(data, size, max_size, fuzz::mutate_message(all, begin, choose));
}

// The first byte tells the length of a text and whether the file starts with marks and all bytes; then the text, then
// the file. Where the vocabulary has all bytes, every text without U+2581 comes back.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view all{reinterpret_cast<const char*>(data) + 1, size - 1};
  const std::string_view text = all.substr(0, std::min<std::size_t>(data[0] & 127, all.size()));
  static const std::string start = support::model_start() + support::model_specs();
  const std::string file = (data[0] >= 128 ? start : std::string{}) + std::string{all.substr(text.size())};
  try {
    const auto t = pesc::sentencepiece_model::parse("fuzz.model", file);
    const auto ids = t.encode(text, {.bos = true, .eos = true});
    for (const std::int32_t id : ids)
      if (id < 0 || id >= t.size()) std::abort();
    const std::string back = t.decode(ids);
    if (t.has_all_bytes() && text.find("\xE2\x96\x81") == std::string_view::npos && back != text)
      std::abort();
    for (const std::int32_t id : t.encode(text, {.bos = false}))
      if (t.is_control(id)) std::abort();
    static_cast<void>(t.encode(text, {.marks = pesc::mark_rule::ids}));
  } catch (const pesc::format_error& e) {
    if (!std::string_view{e.what()}.starts_with("fuzz.model")) std::abort();
  }
  return 0;
}
