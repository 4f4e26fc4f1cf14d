// SPDX-License-Identifier: Apache-2.0
#include <csignal>
#include <new>
#include <utility>

#include "pesc/model/missing_tensors.hpp"
#include "tool/program.hpp"

// The program `pesc`: finds the command, runs it, turns errors into one line and an exit status.

namespace {

using namespace pesc;

/// \brief What is wrong with a first word that is no command.
std::string unknown_command(const CLI::App& program, int argc, char** argv) {
  if (argc < 2 || argv[1][0] == '-') return {};
  std::vector<std::string> known;
  std::string all;
  for (const CLI::App* sub : program.get_subcommands([](const CLI::App*) { return true; })) {
    known.push_back(sub->get_name());
    all += (all.empty() ? "" : ", ") + sub->get_name();
  }
  const std::string near = nearest_name(argv[1], known);
  return pesc::detail::concat("there is no command ", in_quotes(argv[1]),
                              near.empty() ? ". There are " : ". Did you mean ", near.empty() ? all : near,
                              near.empty() ? "" : "?");
}

/// \brief What is wrong with the first option that no command knows, with the one that was meant; empty without one.
///
/// Looked for first: where an option is mistyped, the message that another is missing would only lead astray.
std::string unknown_option(const CLI::App& program, int argc, char** argv) {
  std::vector<std::string> known{"--help", "--version"};
  for (const CLI::App* sub : program.get_subcommands())
    for (const CLI::Option* option : sub->get_options())
      for (const std::string& name : option->get_lnames()) known.push_back("--" + name);
  if (program.get_subcommands().empty()) return unknown_command(program, argc, argv);
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    const std::string name{argument.substr(0, argument.find('='))};
    if (!name.starts_with("--") || name.size() == 2 ||
        std::find(known.begin(), known.end(), name) != known.end())
      continue;
    const std::string near = nearest_name(name, known);
    return pesc::detail::concat("there is no option ", in_quotes(name), near.empty() ? "" : ". Did you mean ",
                                near, near.empty() ? "" : "?");
  }
  return {};
}

/// \brief The message without line ends, so that an error stays one line whatever a name holds.
std::string plain_line(std::string text) {
  for (char& c : text)
    if (static_cast<unsigned char>(c) < 0x20) c = ' ';
  while (text.ends_with(' ')) text.pop_back();
  return text;
}

int fail(const std::string& message, int status) {
  std::fprintf(stderr, "pesc: %s\n", plain_line(message).c_str());
  return status;
}

/// \brief The status of a command, or an error where what it printed went nowhere.
int check_output(int status) {
  if (status != tool::done || (std::fflush(stdout) == 0 && std::ferror(stdout) == 0)) return status;
  return fail("standard output cannot be written: the disk may be full", tool::bad_input);
}

/// \brief Help goes to stdout with status 0; everything else is wrong usage.
int report_parse(const CLI::App& program, const CLI::ParseError& e, int argc, char** argv) {
  if (e.get_exit_code() == 0) return check_output(program.exit(e));
  const auto chosen = program.get_subcommands();
  const std::string name = chosen.empty() ? "" : ' ' + chosen.front()->get_name();
  const std::string unknown = unknown_option(program, argc, argv);
  fail(unknown.empty() ? e.what() : unknown, tool::wrong_usage);
  std::fprintf(stderr, "pesc: all options with examples: pesc%s --help\n", name.c_str());
  return tool::wrong_usage;
}

int run(CLI::App& program, const std::vector<std::pair<std::string, tool::command>>& commands) {
  for (const auto& [name, command] : commands) {
    if (!program.got_subcommand(name)) continue;
    try {
      return check_output(command());
    } catch (const tool::usage_error& e) {
      return fail(e.what(), tool::wrong_usage);
    } catch (const numeric_error& e) {
      return fail(e.what(), tool::not_finite);
    } catch (const std::bad_alloc&) {
      return fail("not enough memory", tool::bad_input);
    } catch (const std::exception& e) {
      return fail(e.what(), tool::bad_input);
    }
  }
  return tool::wrong_usage;
}

}  // namespace

int main(int argc, char** argv) {
  // A limit on file sizes is then an error like a full disk, not the end of the process.
  std::signal(SIGXFSZ, SIG_IGN);
  CLI::App program{
      "Turns a dense Llama-type model into a mixture of experts (PESC), tunes it, measures it, lets it "
      "write.",
      "pesc"};
  program.set_version_flag(
      "--version", [] { return tool::version_text(); }, "Print versions and instruction sets and exit");
  program.require_subcommand(1);
  program.footer("Example: pesc demo");
  const std::vector<std::pair<std::string, tool::command>> commands = {
      {"craft", tool::add_craft(program)},       {"tune", tool::add_tune(program)},
      {"evaluate", tool::add_evaluate(program)}, {"generate", tool::add_generate(program)},
      {"chat", tool::add_chat(program)},         {"convert", tool::add_convert(program)},
      {"inspect", tool::add_inspect(program)},   {"demo", tool::add_demo(program)}};
  try {
    program.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return report_parse(program, e, argc, argv);
  }
  return run(program, commands);
}
