// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdio>
#include <functional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <CLI/CLI.hpp>

#include "pesc/core/error.hpp"
#include "pesc/core/types.hpp"

namespace pesc::tool {

/// \brief Exit status of the program.
enum exit_status : int { done = 0, bad_input = 1, wrong_usage = 2, not_finite = 3, interrupted = 130 };

/// \brief Options that contradict each other, the model or the run: the caller's mistake, not the data's.
class usage_error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// \brief Leaves the command with a message put together from parts.
template <class... Parts>
[[noreturn]] void refuse_usage(const Parts&... parts) {
  throw usage_error(pesc::detail::concat(parts...));
}

/// \brief Runs a command whose options are parsed; returns the exit status.
using command = std::function<int()>;

// One function per command, each in its own file: adds the subcommand with its options.
command add_craft(CLI::App& program);
command add_tune(CLI::App& program);
command add_evaluate(CLI::App& program);
command add_generate(CLI::App& program);
command add_chat(CLI::App& program);
command add_convert(CLI::App& program);
command add_inspect(CLI::App& program);
command add_demo(CLI::App& program);

/// \brief Lines about compiler, instruction sets and libraries.
std::string version_text();

/// \brief Prints lines that begin with the name of the program to stderr.
inline void warn(const std::vector<std::string>& lines, bool quiet = false) {
  if (quiet) return;
  for (const std::string& line : lines) std::fprintf(stderr, "pesc: warning: %s\n", line.c_str());
}

/// \brief Prints text that does not wait for the end of a line.
inline void print_now(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

}  // namespace pesc::tool
