// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cctype>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "pesc/core/error.hpp"
#include "pesc/core/types.hpp"

namespace pesc {

/// \brief The bytes as characters, without a copy.
[[nodiscard]] inline std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// \brief The characters as bytes, without a copy.
[[nodiscard]] inline std::span<const std::byte> as_bytes(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

/// \brief What the file is and what to do, if its first bytes are of a kind that is often taken for a model;
/// empty for everything else.
/// \param start  the file, or at least its first 512 bytes
/// \param size   of the whole file
[[nodiscard]] inline std::string describe_foreign_file(std::span<const std::byte> start,
                                                       index_t size_of_file) {
  const std::string_view text = as_text(start.first(start.size() < 512 ? start.size() : 512));
  const auto starts = [&](std::string_view mark) { return text.starts_with(mark); };
  const std::string size = detail::concat(" (", size_of_file, " bytes)");
  constexpr const char* convert = " Save it again from Python with safe_serialization=True.";
  if (starts("version https://git-lfs"))
    return "this is a Git LFS pointer, not the file itself" + size + ". Run git lfs pull.";
  if (starts("PK\x03\x04"))
    return "this is a zip archive" + size + ", perhaps pickled weights, which are not read." + convert;
  if (starts("\x1F\x8B")) return "this is a gzip file" + size + ". Unpack it first.";
  if (text.size() >= 2 && text[0] == '\x80' && text[1] >= 2 && text[1] <= 5)
    return "this is a Python pickle" + size + ", which can run code when it is loaded and is not read." +
           convert;
  if (starts("GGUF")) return "this is a GGUF file" + size + ", expected another format.";
  if (starts("\x93NUMPY")) return "this is a NumPy array file" + size + ", expected another format.";

  std::string lower;
  for (const char c : text.substr(0, 64))
    if (!lower.empty() || std::isspace(static_cast<unsigned char>(c)) == 0)
      lower += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  if (lower.starts_with("<!doctype") || lower.starts_with("<html"))
    return "this is a web page" + size +
           ", not the file itself. The download needs a direct address or a login.";
  return {};
}
[[nodiscard]] inline std::string describe_foreign_file(std::span<const std::byte> bytes) {
  return describe_foreign_file(bytes, static_cast<index_t>(bytes.size()));
}

}  // namespace pesc
