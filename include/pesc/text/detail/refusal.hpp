// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "pesc/core/error.hpp"

namespace pesc::detail {

/// \brief Ends with "FILE: WHAT (found X, expected Y) at WHERE. HINT".
[[noreturn]] inline void refuse(const std::string& file, std::string_view what, std::string_view found,
                                std::string_view expected, std::string_view where,
                                std::string_view hint = {}) {
  std::string text = concat(file, ": ", what, " (found ", found, ", expected ", expected, ") at ", where);
  if (!hint.empty()) text += ". " + std::string{hint};
  raise<format_error>(text);
}

}  // namespace pesc::detail
