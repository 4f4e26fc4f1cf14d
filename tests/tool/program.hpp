// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <sys/wait.h>

#include "support/data.hpp"
#include "support/temporary_folder.hpp"

namespace support {

/// \brief What a call of the program did.
struct outcome {
  int status = -1;
  std::string out, err;

  [[nodiscard]] int error_lines() const {
    int lines = 0;
    for (const char c : err) lines += c == '\n' ? 1 : 0;
    return lines;
  }
  [[nodiscard]] bool says(const std::string& text) const { return err.find(text) != std::string::npos; }
};

inline std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>{file}, {}};
}

inline std::string shell_quoted(const std::string& text) {
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? std::string{"'\\''"} : std::string{c};
  return out + "'";
}

/// \brief Runs `bin/pesc` for at most 300 s, in the shell after the words `before`.
/// \param input   what it reads from standard input
/// \param output  file that takes its standard output; empty: `outcome::out`
inline outcome pesc_program(const std::vector<std::string>& arguments, const std::string& before = "",
                            const std::string& input = "", const std::string& output = "") {
  const temporary_folder folder;
  std::string line = before + " timeout 300 " + shell_quoted(std::string{PESC_PROGRAM_DIR} + "/pesc");
  for (const std::string& argument : arguments) line += ' ' + shell_quoted(argument);
  line += " > " + (output.empty() ? folder.path("out") : output) + " 2> " + folder.path("err") + " < " +
          folder.write("in", input);
  const int code = std::system(line.c_str());
  outcome result;
  result.status = WIFEXITED(code) ? WEXITSTATUS(code) : 128 + WTERMSIG(code);
  result.out = read_text(folder.path("out"));
  result.err = read_text(folder.path("err"));
  return result;
}

/// \brief Starts `bin/pesc` and sends it a signal as soon as `file` exists; its exit status as a shell tells it.
inline int signal_program_at(const std::vector<std::string>& arguments, const std::string& file,
                             const std::string& signal) {
  std::string call = shell_quoted(std::string{PESC_PROGRAM_DIR} + "/pesc");
  for (const std::string& argument : arguments) call += ' ' + shell_quoted(argument);
  const std::string line = call + " > /dev/null 2>&1 & p=$!; while kill -0 $p 2> /dev/null; do [ -e " +
                           shell_quoted(file) + " ] && { kill -" + signal +
                           " $p; wait $p; exit $?; }; done; exit 99";
  const int code = std::system(line.c_str());
  return WIFEXITED(code) ? WEXITSTATUS(code) : -1;
}

/// \brief A bundled file as an argument.
inline std::string bundled(const char* name) { return example_data(name).string(); }

/// \brief A freshly crafted small model in `folder`.
inline std::string crafted(const temporary_folder& folder, std::vector<std::string> options = {}) {
  std::vector<std::string> arguments{
      "craft", "--model", bundled("stories260K.bin"), "--out", folder.path("crafted"), "--quiet"};
  arguments.insert(arguments.end(), options.begin(), options.end());
  const outcome made = pesc_program(arguments);
  return made.status == 0 ? folder.path("crafted") : made.err;
}

}  // namespace support
