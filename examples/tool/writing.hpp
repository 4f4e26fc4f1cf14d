// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "pesc/text/tokenizer.hpp"
#include "tool/session.hpp"

namespace pesc::tool {

struct writing_result {
  index_t tokens = 0;
  bool full = false;  ///< the model's longest sequence was reached
};

/// \brief Continues a prompt and hands out whole characters as they come.
/// \throws format_error for a prompt that is longer than the model's longest sequence
writing_result write_text(session& model, const tokenizer& tokens, const std::string& prompt,
                          index_t max_tokens, const sampling_options& sampling,
                          function_ref<void(std::string_view)> show);

/// \brief The continuation as one text.
[[nodiscard]] std::string continuation(session& model, const tokenizer& tokens, const std::string& prompt,
                                       index_t max_tokens, const sampling_options& sampling);

}  // namespace pesc::tool
