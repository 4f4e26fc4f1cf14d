// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "pesc/text/tokenizer.hpp"
#include "tool/run_options.hpp"
#include "tool/session.hpp"

// Parts of a tuning run that `tune` and `demo` share.

namespace pesc::tool {

/// \brief A path that means the same in every folder.
[[nodiscard]] std::string absolute(const std::string& path);

/// \brief The data files of a run in tokens, with their shares.
struct prepared_data {
  std::vector<data_set> sets;
  std::vector<double> weights;

  [[nodiscard]] std::vector<const token_records*> pointers() const {
    std::vector<const token_records*> out;
    for (const data_set& set : sets) out.push_back(&set.tokens);
    return out;
  }
};

/// \brief Reads all files and prints a line about each.
[[nodiscard]] prepared_data prepare_data(const std::vector<weighted_path>& files, const run_options& options,
                                         const tokenizer& text, const llama_config& model, bool quiet);

/// \brief Prints what tuning will take, by purpose; refuses where that is more than there is.
/// \param limit_gb  instead of the available memory; 0: none
/// \throws io_error unless `force`
void check_memory(session& model, const tuning_plan& plan, double limit_gb, bool force, bool quiet);

/// \brief Refuses to start where the disk has no room for three states.
/// \throws io_error unless `force`
void check_disk(const session& model, const std::string& folder, bool force);

/// \brief What run.json says of a run beside its counters: model, data files with checksums, options.
[[nodiscard]] json run_settings(const std::string& model, const std::vector<weighted_path>& data,
                                const run_options& options);

/// \brief Runs a plan with progress line and logs in its folder, until its end or Ctrl-C.
/// \param first  steps that were done before
/// \param on_step  called after each step, besides; may be empty
tuning_result run_with_logs(session& model, const tuning_plan& plan, index_t first, bool quiet,
                            const std::function<void(const step_record&)>& on_step = {});

}  // namespace pesc::tool
