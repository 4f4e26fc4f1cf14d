// SPDX-License-Identifier: Apache-2.0
#include <new>
#include <utility>

#include "pesc/model/missing_tensors.hpp"
#include "tool/program.hpp"

// The program `pesc`: finds the command, runs it, turns errors into one line and an exit status.

namespace {

using namespace pesc;

/// \brief The option that was meant, as a hint behind the message about an unknown one.
std::string nearest_option(const CLI::App& program, const std::string& message) {
  const std::size_t at = message.find("--");
  if (at == std::string::npos) return {};
  const std::string given = message.substr(at, message.find_first_of(" =", at) - at);
  std::vector<std::string> known;
  for (const CLI::App* sub : program.get_subcommands())
    for (const CLI::Option* option : sub->get_options())
      for (const std::string& name : option->get_lnames()) known.push_back("--" + name);
  if (std::find(known.begin(), known.end(), given) != known.end()) return {};
  const std::string near = nearest_name(given, known);
  return near.empty() ? std::string{} : " Did you mean " + near + "?";
}

int fail(const char* kind, const std::string& message, int status) {
  std::fprintf(stderr, "pesc: %s%s\n", kind, one_line(message, 2000).c_str());
  return status;
}

/// \brief Help goes to stdout with status 0; everything else is wrong usage.
int report_parse(const CLI::App& program, const CLI::ParseError& e) {
  if (e.get_exit_code() == 0) return program.exit(e);
  const auto chosen = program.get_subcommands();
  const std::string name = chosen.empty() ? "" : ' ' + chosen.front()->get_name();
  fail("", std::string{e.what()} + '.' + nearest_option(program, e.what()), tool::wrong_usage);
  std::fprintf(stderr, "pesc: all options with examples: pesc%s --help\n", name.c_str());
  return tool::wrong_usage;
}

int run(CLI::App& program, const std::vector<std::pair<std::string, tool::command>>& commands) {
  for (const auto& [name, command] : commands) {
    if (!program.got_subcommand(name)) continue;
    try {
      return command();
    } catch (const tool::usage_error& e) {
      return fail("", e.what(), tool::wrong_usage);
    } catch (const numeric_error& e) {
      return fail("", e.what(), tool::not_finite);
    } catch (const std::bad_alloc&) {
      return fail("", "not enough memory", tool::bad_input);
    } catch (const std::exception& e) {
      return fail("", e.what(), tool::bad_input);
    }
  }
  return tool::wrong_usage;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App program{"Turns a dense Llama-type model into a mixture of experts (PESC), tunes it, measures it, lets it write.",
                   "pesc"};
  program.set_version_flag("--version", [] { return tool::version_text(); }, "Print versions and instruction sets and exit");
  program.require_subcommand(1);
  program.footer("Example: pesc demo");
  const std::vector<std::pair<std::string, tool::command>> commands = {
      {"craft", tool::add_craft(program)},       {"tune", tool::add_tune(program)},
      {"evaluate", tool::add_evaluate(program)}, {"generate", tool::add_generate(program)},
      {"inspect", tool::add_inspect(program)},   {"demo", tool::add_demo(program)}};
  try {
    program.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return report_parse(program, e);
  }
  return run(program, commands);
}
