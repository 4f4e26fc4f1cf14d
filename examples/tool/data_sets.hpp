// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "pesc/model/config.hpp"
#include "pesc/text/tokenizer.hpp"
#include "pesc/train/records.hpp"
#include "pesc/train/token_records.hpp"
#include "tool/program.hpp"

namespace pesc::tool {

/// \brief How data files are read.
struct data_options {
  std::string fields;         ///< "PROMPT,TARGET"; empty: fields known by name
  std::string form = "auto";  ///< how prompts are written: one of `chat_form_choices`
  index_t skip_bad = 0;
  index_t pieces = 900;  ///< characters of a piece of plain text
};

/// \brief What --template may be: "auto" (as the model's chat template says, if it brings one), "none", or a known form.
[[nodiscard]] std::vector<std::string> chat_form_choices();

/// \brief Checks --fields and turns the options into the library's.
/// \throws usage_error
[[nodiscard]] record_options to_record_options(const data_options& options);

/// \brief One data file in tokens.
struct data_set {
  std::string path;
  token_records tokens;
  std::string description;  ///< a line of numbers
};

/// \brief Reads a file and tokenises it: start mark, text, end mark of the model; or the prompt as a question of a
/// conversation and the target as its answer.
/// \param length  most tokens that the model takes in
[[nodiscard]] data_set read_data_set(const std::string& path, const data_options& options,
                                     const tokenizer& text, const llama_config& model, index_t length);

}  // namespace pesc::tool
