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
  std::string fields;  ///< "PROMPT,TARGET"; empty: fields known by name
  index_t skip_bad = 0;
  index_t pieces = 900;  ///< characters of a piece of plain text
};

/// \brief Checks --fields and turns the options into the library's.
/// \throws usage_error
[[nodiscard]] record_options to_record_options(const data_options& options);

/// \brief One data file in tokens.
struct data_set {
  std::string path;
  token_records tokens;
  std::string description;  ///< a line of numbers
};

/// \brief Turns records into tokens: start mark, text, end mark of the model.
/// \param length  most tokens that the model takes in
[[nodiscard]] token_records to_tokens(const std::vector<text_record>& records, const tokenizer& text,
                                      const llama_config& model, index_t length, token_summary& summary);

/// \brief Reads a file and tokenises it.
[[nodiscard]] data_set read_data_set(const std::string& path, const data_options& options,
                                     const tokenizer& text, const llama_config& model, index_t length);

}  // namespace pesc::tool
