// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "fuzz/mutation.hpp"
#include "pesc/text/llama2c_tokenizer.hpp"

namespace {

void append_piece(std::string& out, const std::string& text) {
  const float score = 0;
  const auto length = static_cast<std::int32_t>(text.size());
  char head[8];
  std::memcpy(head, &score, 4);
  std::memcpy(head + 4, &length, 4);
  out.append(head, 8);
  out += text;
}

/// The start of a tokenizer file that has all bytes, so that what follows decides about merges only.
const std::string& complete_start() {
  static const std::string start = [] {
    std::string out("\x40\0\0\0", 4);
    for (const char* mark : {"<unk>", "<s>", "</s>"}) append_piece(out, mark);
    for (unsigned b = 0; b < 256; ++b) {
      const char* digits = "0123456789ABCDEF";
      append_piece(out, std::string("<0x") + digits[b >> 4] + digits[b & 15] + ">");
    }
    return out;
  }();
  return start;
}

}  // namespace

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned seed) {
  fuzz::chooser choose{seed};
  if (choose.below(2) == 0 || size == 0) return LLVMFuzzerMutate(data, size, max_size);
  // Score and length stand before each piece; the file has its longest length in front where all bytes do not precede it.
  std::vector<fuzz::field> fields;
  std::size_t at = 1 + std::min<std::size_t>(data[0] & 127, size - 1) + (data[0] >= 128 ? 0 : 4);
  while (at + 8 <= size) {
    fields.push_back({at, 4});
    fields.push_back({at + 4, 4});
    std::uint32_t length = 0;
    std::memcpy(&length, data + at + 4, 4);
    if (length > size - at - 8) break;
    at += 8 + length;
  }
  if (fields.empty()) return LLVMFuzzerMutate(data, size, max_size);
  fuzz::set_to_border(data, fields, choose);
  return size;
}

// The first byte tells the length of a text and whether the file starts with all bytes; then the text, then the
// file. Where the vocabulary has all bytes, every text comes back.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view all{reinterpret_cast<const char*>(data) + 1, size - 1};
  const std::string_view text = all.substr(0, std::min<std::size_t>(data[0] & 127, all.size()));
  std::string file{data[0] >= 128 ? complete_start() : std::string{}};
  file += all.substr(text.size());
  try {
    const auto t = pesc::llama2c_tokenizer::parse("fuzz", pesc::as_bytes(file));
    const auto ids = t.encode(text, {true, true, true});
    for (const std::int32_t id : ids)
      if (id < 0 || id >= t.size()) std::abort();
    const std::string back = t.decode(ids);
    if (t.has_all_bytes() && back != text) std::abort();
    if (t.has_all_bytes() && t.decode(t.encode(text, {false, false, false}), {true, false}) != text)
      std::abort();
  } catch (const pesc::format_error&) {
  }
  return 0;
}
