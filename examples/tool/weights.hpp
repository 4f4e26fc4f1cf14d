// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "pesc/model/load_weights.hpp"
#include "tool/program.hpp"

namespace pesc::tool {

/// \brief The format that a command line names: "nf4-dq", "nf4", "fp4", "bf16" or "float"; nothing for "keep".
/// \param block  weights that share a scale, in 4 bits
/// \throws usage_error for a block that is no power of two
[[nodiscard]] std::optional<format_info> format_named(const std::string& weights, index_t block);

/// \brief Adds --weights of a command that only reads: the form of the frozen projections in memory.
void add_weights_option(CLI::App& app, std::string& weights);

}  // namespace pesc::tool
