// SPDX-License-Identifier: Apache-2.0
#pragma once

// JSON in three parts: `json`, the value; `parse_json`, strict and with limits; `to_string`. `json_fields` reads
// the keys of an object with errors that name file and key.

#include <string>

#include "pesc/io/detail/json_fields.hpp"
#include "pesc/io/detail/json_parser.hpp"
#include "pesc/io/detail/json_value.hpp"
#include "pesc/io/detail/json_writer.hpp"
#include "pesc/io/file.hpp"

namespace pesc {

/// \brief Reads and parses a whole file.
/// \throws io_error, format_error
[[nodiscard]] inline json read_json(const std::string& path, const json_limits& limits = {}) {
  const std::vector<std::byte> bytes = read_file(path, static_cast<index_t>(limits.bytes));
  return parse_json(as_text(bytes), path, limits);
}

}  // namespace pesc
