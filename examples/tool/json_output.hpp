// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdio>
#include <string>

#include "pesc/io/json.hpp"

namespace pesc::tool {

/// \brief Where text for people goes: not among JSON on standard output.
[[nodiscard]] inline std::FILE* text_output(const std::string& json_file) {
  return json_file == "-" ? stderr : stdout;
}

/// \brief Writes a value to a file, whole or not at all; "-" is standard output, an empty name nothing.
/// \throws io_error
inline void write_json_output(const std::string& file, const json& value) {
  if (file.empty()) return;
  const std::string text = to_string(value, 2) + '\n';
  if (file == "-")
    std::fputs(text.c_str(), stdout);
  else
    write_file(file, text);
}

}  // namespace pesc::tool
