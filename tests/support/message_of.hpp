// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "pesc/core/error.hpp"

namespace support {

/// \brief The message of the `Error` that `action` ends with; says so when it ends otherwise.
template <class Error = pesc::format_error, class Action>
std::string message_of(Action&& action) {
  try {
    action();
  } catch (const pesc::error& e) {
    const bool expected = dynamic_cast<const Error*>(&e) != nullptr;
    return (expected ? "" : "another error: ") + std::string(e.what());
  }
  return "no error";
}

/// \brief Whether `text` holds `part`.
inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace support
