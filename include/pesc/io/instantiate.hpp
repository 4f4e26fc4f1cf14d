// SPDX-License-Identifier: Apache-2.0
#pragma once

// The JSON library, compiled once: include this in one unit of a program whose other units define PESC_COMPILED and use
// pesc/model.hpp. They then do without the library's header, which is half of what they compile.

#include "pesc/io/detail/json_library.hpp"

namespace pesc::detail {
template bool read_json_text<json_sink>(std::string_view text, const char*& seen, json_sink& to);
}
