// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "pesc/core/error.hpp"
#include "pesc/core/types.hpp"
#include "pesc/io/quoted.hpp"

namespace pesc {

/// \brief Number of insertions, deletions and replacements of bytes between two names.
[[nodiscard]] inline index_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<index_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = static_cast<index_t>(j);
  for (std::size_t i = 1; i <= a.size(); ++i) {
    index_t diagonal = row[0];
    row[0] = static_cast<index_t>(i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const index_t replace = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({replace, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

/// \brief The candidate nearest to `name`; empty when none differs in less than a third of its bytes.
[[nodiscard]] inline std::string nearest_name(std::string_view name,
                                              const std::vector<std::string>& candidates) {
  // Names and lists come from files: what a message may cost is bounded.
  constexpr std::size_t longest = 256;
  constexpr std::size_t most = 2000;
  if (name.size() > longest) return {};
  std::string best;
  index_t least = static_cast<index_t>(name.size()) / 3 + 1;
  for (std::size_t i = 0; i < candidates.size() && i < most; ++i) {
    if (candidates[i].size() > longest) continue;
    const index_t distance = edit_distance(name, candidates[i]);
    if (distance < least) {
      least = distance;
      best = candidates[i];
    }
  }
  return best;
}

namespace detail {

/// \brief The first five names and how many more there are.
inline std::string first_names(const std::vector<std::string>& names) {
  std::string out;
  for (std::size_t i = 0; i < names.size() && i < 5; ++i) out += (i > 0 ? ", " : "") + in_quotes(names[i]);
  if (names.size() > 5) out += concat(" and ", names.size() - 5, " more");
  return out;
}

inline bool all_contain(const std::vector<std::string>& names, std::string_view part) {
  return std::all_of(names.begin(), names.end(),
                     [&](const std::string& n) { return n.find(part) != n.npos; });
}

}  // namespace detail

/// \brief Ends with an error about tensors that a model needs and its files lack.
/// \param unused  names that the files have and the model does not use
/// \throws format_error always
[[noreturn]] inline void refuse_missing_tensors(const std::string& where,
                                                const std::vector<std::string>& missing, index_t total,
                                                const std::vector<std::string>& unused) {
  std::string text = detail::concat(where, ": missing ", missing.size(), " of ", total,
                                    " tensors: ", detail::first_names(missing), ".");
  const std::string near = nearest_name(missing.front(), unused);
  if (!near.empty()) text += " The nearest to the first that is there: " + in_quotes(near) + ".";
  if (detail::all_contain(missing, ".moe_adapter."))
    text += " This looks like a dense model whose config.json speaks of experts; craft it instead.";
  detail::raise<format_error>(text);
}

/// \brief Ends with an error about tensors that no part of the model uses.
/// \param known  names that the model uses, for the nearest
/// \throws format_error always
[[noreturn]] inline void refuse_extra_tensors(const std::string& where, const std::vector<std::string>& extra,
                                              const std::vector<std::string>& known) {
  std::string text = detail::concat(where, ": ", extra.size(),
                                    " tensors are not part of the model that config.json "
                                    "describes: ",
                                    detail::first_names(extra), ".");
  const std::string near = nearest_name(extra.front(), known);
  if (!near.empty()) text += " The nearest to the first that is: " + in_quotes(near) + ".";
  if (detail::all_contain(extra, ".moe_adapter."))
    text +=
        " They belong to a mixture of experts; config.json lacks adapter_dim, num_experts and topk for them.";
  if (detail::all_contain(extra, ".bias")) text += " config.json lacks attention_bias or mlp_bias for them.";
  detail::raise<format_error>(text);
}

}  // namespace pesc
