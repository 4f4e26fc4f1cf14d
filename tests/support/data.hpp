// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include <doctest/doctest.h>

// Where tests find their files. What the tree carries is in tests/data and examples/data; larger files are
// looked up in the folder that the environment variable PESC_DATA names (reference outputs: PESC_GOLDEN), or in
// the default that the build passes, and a test that lacks one is skipped by name.

namespace support {

/// \brief A file or folder under tests/data; not checked for existence.
inline std::filesystem::path test_data(std::string_view name = {}) {
  return std::filesystem::path(PESC_TEST_DATA) / name;
}

/// \brief A file or folder under examples/data; not checked for existence.
inline std::filesystem::path example_data(std::string_view name = {}) {
  return std::filesystem::path(PESC_EXAMPLE_DATA) / name;
}

namespace detail {

inline std::optional<std::filesystem::path> external(const char* variable, const char* fallback,
                                                     std::string_view name) {
  const char* root = std::getenv(variable);
  const auto path = std::filesystem::path(root && *root ? root : fallback) / name;
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return std::nullopt;
  return path;
}

inline unsigned skipped = 0;

}  // namespace detail

/// \brief A file or folder of the external data, where there is one.
inline std::optional<std::filesystem::path> external_data(std::string_view name = {}) {
  return detail::external("PESC_DATA", PESC_DEFAULT_DATA, name);
}

/// \brief A file or folder of the external reference outputs, where there is one.
inline std::optional<std::filesystem::path> external_golden(std::string_view name = {}) {
  return detail::external("PESC_GOLDEN", PESC_DEFAULT_GOLDEN, name);
}

/// \brief The first that exists: tests/data, examples/data, the external data.
inline std::optional<std::filesystem::path> find_data(std::string_view name) {
  for (const auto& path : {test_data(name), example_data(name)})
    if (std::error_code error; std::filesystem::exists(path, error)) return path;
  return external_data(name);
}

/// \brief Number of tests of this run that said they could not run.
inline unsigned skipped_tests() { return detail::skipped; }

/// \brief Says which test does not run and why; `PESC_SKIP` also leaves the test.
inline void skip(std::string_view reason) {
  const auto* test = doctest::getContextOptions()->currentTest;
  std::printf("SKIPPED: %s (%.*s)\n", test ? test->m_name : "?", static_cast<int>(reason.size()),
              reason.data());
  ++detail::skipped;
}

}  // namespace support

/// \brief Leaves the running test case and reports it as skipped, by name, with the reason.
#define PESC_SKIP(reason)    \
  do {                       \
    ::support::skip(reason); \
    return;                  \
  } while (false)

/// \brief Declares `variable`, the path of the data file `name`; skips the test case where there is none.
#define PESC_REQUIRE_DATA(variable, name)                                             \
  const auto variable##_found = ::support::find_data(name);                           \
  if (!variable##_found) PESC_SKIP(std::string("no data file ") + std::string(name)); \
  const std::filesystem::path variable = *variable##_found
