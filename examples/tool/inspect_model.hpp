// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdio>
#include <vector>

#include "pesc/io/json.hpp"
#include "pesc/model/model_files.hpp"

namespace pesc::tool {

[[nodiscard]] json shape_json(const std::vector<index_t>& shape);

/// \brief Prints what a model's files hold and what the program would do with them; reads no weights.
///
/// A model that is not supported is described as far as its files can be read.
/// \param tensors  list them one by one
/// \throws io_error, format_error for files that are damaged
[[nodiscard]] json inspect_model(const model_source& source, bool tensors, std::FILE* to);

}  // namespace pesc::tool
