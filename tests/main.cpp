// SPDX-License-Identifier: Apache-2.0
#define DOCTEST_CONFIG_IMPLEMENT
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <map>
#include <ostream>
#include <string>
#include <string_view>

#include <doctest/doctest.h>

#include "support/data.hpp"
#include "support/silent_reporter.hpp"

namespace {

/// Exit status by which CTest knows a skipped test.
constexpr int skip_status = 77;

std::string program;
std::string folder;
std::string label = "cpu";
std::string launcher;  // what starts a test, such as a simulator; empty: nothing
unsigned cases_run = 0;

/// Writes text so that CMake reads it back unchanged, whatever it holds.
std::string bracket_quoted(const std::string& text) { return "[==[" + text + "]==]"; }

/// Escapes what doctest's filters treat as separators.
std::string as_filter(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == ',' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

/// Lists the test cases as CTest commands, one test for each (`--list-test-cases --reporters=ctest`).
class ctest_reporter : public support::silent_reporter {
 public:
  explicit ctest_reporter(const doctest::ContextOptions& options) : out_(*options.cout) {}

  void report_query(const doctest::QueryData& query) override {
    for (unsigned i = 0; i < query.num_data; ++i) write_case(*query.data[i]);
  }

 private:
  void write_case(const doctest::TestCaseData& test) {
    const std::filesystem::path file = test.m_file.c_str();
    const std::string suite = test.m_test_suite;
    const bool suite_names_folder = suite.compare(0, folder.size() + 1, folder + "/") == 0;
    std::string name =
        suite_names_folder ? suite : folder + "/" + (suite.empty() ? file.stem().string() : suite);
    name += ": ";
    name += test.m_name;
    // CTest keeps one test per name; template cases of equal type names are told apart by a number.
    if (const int seen = seen_[name]++; seen > 0) name += " #" + std::to_string(seen + 1);

    const bool slow = test.m_description && std::strstr(test.m_description, "slow");
    out_ << "add_test(" << bracket_quoted(name) << ' ';
    if (!launcher.empty()) out_ << bracket_quoted(launcher) << ' ';
    out_ << bracket_quoted(program) << ' '
         << bracket_quoted("--source-file=*" + as_filter(file.filename().string())) << ' '
         << bracket_quoted("--test-case=" + as_filter(test.m_name)) << ")\n"
         << "set_tests_properties(" << bracket_quoted(name) << " PROPERTIES LABELS "
         << bracket_quoted(slow ? label + ";slow" : label) << " TIMEOUT " << (slow ? 1500 : 300)
         << " SKIP_RETURN_CODE " << skip_status << ")\n";
  }

  std::ostream& out_;
  std::map<std::string, int> seen_;
};

/// Counts what ran, so that a filter that matches nothing does not pass for a passed test.
class run_listener : public support::silent_reporter {
 public:
  explicit run_listener(const doctest::ContextOptions&) {}
  void test_run_end(const doctest::TestRunStats& stats) override {
    cases_run = stats.numTestCasesPassingFilters;
  }
};

REGISTER_REPORTER("ctest", 1, ctest_reporter);
REGISTER_LISTENER("run", 1, run_listener);

}  // namespace

int main(int argc, char** argv) {
  program = std::filesystem::absolute(argv[0]).lexically_normal().string();
  bool query = false;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    const auto take = [&](std::string_view option, std::string& value) {
      if (argument.substr(0, option.size()) == option) value = argument.substr(option.size());
    };
    take("--ctest-folder=", folder);
    take("--ctest-label=", label);
    take("--ctest-launcher=", launcher);
    constexpr std::string_view queries[] = {"-l",     "-h",     "-?",        "-v",     "-c",
                                            "--list", "--help", "--version", "--count"};
    for (const std::string_view option : queries) query |= argument.substr(0, option.size()) == option;
  }

  doctest::Context context(argc, argv);
  const int status = context.run();
  if (status != 0 || query) return status;
  if (cases_run == 0) {
    std::fputs("no test case matches the filters\n", stderr);
    return 1;
  }
  return support::skipped_tests() >= cases_run ? skip_status : 0;
}
