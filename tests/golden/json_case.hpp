// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "golden.hpp"
#include "pesc/io/quoted.hpp"

namespace golden {

using token_ids = std::vector<std::int32_t>;

/// \brief Counts the cases in which a field differs; the first gives its text to the name.
class differences {
 public:
  explicit differences(std::string name) : name_{std::move(name)} {}

  template <class T>
  void compare(const T& actual, const T& expected, const std::string& where) {
    if (actual == expected) return;
    if (count_++ == 0) first_ = ", first for " + pesc::in_quotes(where);
  }
  void report(outcome& out) const { out.none(name_ + first_, count_); }

 private:
  std::string name_, first_;
  index_t count_ = 0;
};

[[nodiscard]] inline token_ids ids_of(const pesc::json& value, std::string_view key) {
  token_ids out;
  for (const pesc::json& id : value.find(key)->items())
    out.push_back(static_cast<std::int32_t>(*id.to_int()));
  return out;
}

[[nodiscard]] inline const std::string& text_of(const pesc::json& value, std::string_view key) {
  return *value.find(key)->if_string();
}

/// \brief Where data lies that the source tree does not carry.
[[nodiscard]] inline std::string data_folder() {
  const char* root = std::getenv("PESC_DATA");
  return root != nullptr && *root != '\0' ? root : PESC_DEFAULT_DATA;
}

}  // namespace golden
