// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "pesc/text/tokenizer.hpp"
#include "tool/session.hpp"

// The data of the demo: where the bundled files lie, how they are divided, and the files that the demo writes from them.

namespace pesc::tool {

/// \brief A kind of text: what is trained on, what measures it, and a prompt to show.
struct demo_domain {
  std::string name;
  std::string train;     ///< data file; empty: measured only
  std::string held_out;  ///< data file
  std::string prompt;
};

/// \brief Path of a bundled file: beside the sources, beside the installed program, or in the folder PESC_DATA names.
/// \throws io_error naming the places that were searched
[[nodiscard]] std::string bundled_file(const std::string& name);

/// \brief Divides the bundled files into trained and held-out parts and writes them under `folder`, so that the run can
/// be resumed and measured again with `tune` and `evaluate`.
[[nodiscard]] std::vector<demo_domain> write_demo_data(const std::string& folder);

/// \brief Lets a model write stories into a data file, so that it does not forget them while it learns other things.
/// \returns the path
[[nodiscard]] std::string write_stories(session& model, const tokenizer& tokens, const std::string& folder,
                                        index_t count, std::uint64_t seed);

}  // namespace pesc::tool
