// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "pesc/train/evaluate.hpp"
#include "pesc/train/report.hpp"
#include "tool/demo_data.hpp"
#include "tool/tuning.hpp"

namespace pesc::tool {

/// \brief What the demo found out about one domain.
struct domain_result {
  demo_domain domain;
  evaluation dense, crafted, tuned;
  std::string before, after;  ///< what the model writes behind the prompt
};

/// \brief Everything that the demo tells.
struct demo_result {
  std::vector<domain_result> domains;
  std::vector<double> steps, losses, balances;
  std::vector<std::pair<std::string, std::string>> settings;
  index_t layers = 0, experts = 0;
  double tokens_per_second = 0.0, seconds = 0.0;
};

/// \brief Losses, expert load and samples as text.
void print_result(const demo_result& result);

/// \brief Losses and speed for other programs.
[[nodiscard]] json to_json(const demo_result& result);

/// \brief The same with curves and heat maps, for `write_report`.
[[nodiscard]] report to_report(const demo_result& result);

}  // namespace pesc::tool
