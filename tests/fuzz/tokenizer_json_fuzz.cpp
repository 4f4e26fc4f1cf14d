// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "fuzz/mutation.hpp"
#include "pesc/text/byte_alphabet.hpp"
#include "pesc/text/tokenizer_json.hpp"

namespace {

/// All bytes as the first pieces of a byte-level file, where the input leaves a place for them.
const std::string& all_bytes() {
  static const std::string pieces = [] {
    std::string out;
    for (int b = 0; b < 256; ++b) {
      const char byte = static_cast<char>(static_cast<unsigned char>(b));
      const std::string piece = pesc::byte_alphabet::write({&byte, 1});
      out += '"' + (piece == "\"" || piece == "\\" ? '\\' + piece : piece) + "\":" + std::to_string(b) + ',';
    }
    return out;
  }();
  return pieces;
}

std::string with_bytes(std::string_view file) {
  std::string out{file};
  if (const std::size_t at = out.find("@ALL@"); at != std::string::npos) out.replace(at, 5, all_bytes());
  return out;
}

/// Whether text comes back byte by byte: a byte-level file whose added tokens are marks and take no spaces along.
bool is_exact(const pesc::json& value) {
  const pesc::json* decoder = value.find("decoder");
  if (decoder == nullptr || decoder->find("type") == nullptr ||
      !(*decoder->find("type") == pesc::json{"ByteLevel"}))
    return false;
  const pesc::json* added = value.find("added_tokens");
  if (added == nullptr) return true;
  const auto says = [](const pesc::json& token, const char* key) {
    const pesc::json* flag = token.find(key);
    return flag != nullptr && *flag == pesc::json{true};
  };
  return std::all_of(added->items().begin(), added->items().end(), [&](const pesc::json& token) {
    return says(token, "special") && !says(token, "lstrip") && !says(token, "rstrip");
  });
}

}  // namespace

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned seed) {
  return fuzz::json_mutator(data, size, max_size, seed);
}

// The first byte tells the length of a text; then the text, then the file, in which @ALL@ stands for all bytes.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view all{reinterpret_cast<const char*>(data) + 1, size - 1};
  const std::string_view text = all.substr(0, std::min<std::size_t>(data[0], all.size()));
  const std::string file = with_bytes(all.substr(text.size()));
  try {
    const pesc::json value = pesc::parse_json(file, "fuzz.json");
    const auto t = pesc::tokenizer_json::from("fuzz.json", value);
    for (const auto marks : {pesc::mark_rule::file, pesc::mark_rule::text, pesc::mark_rule::ids}) {
      const auto ids = t.encode(text, {.bos = false, .marks = marks});
      for (const std::int32_t id : ids) {
        if (id < 0 || id >= t.size()) std::abort();
        if (marks == pesc::mark_rule::text && t.is_control(id) && id != t.unk()) std::abort();
      }
      const std::string back = t.decode(ids, {.skip_control = false});
      if (t.has_all_bytes() && is_exact(value) && back != text) std::abort();
    }
  } catch (const pesc::format_error& e) {
    if (!std::string_view{e.what()}.starts_with("fuzz.json")) std::abort();
  }
  return 0;
}
