// SPDX-License-Identifier: Apache-2.0

// Runs reference cases: golden [PATH...]. A safetensors file whose metadata has `kind`, and a JSON file that
// has it, is a case; everything else belongs to a case beside it.

#include <algorithm>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <string>
#include <system_error>
#include <vector>

#include "golden.hpp"
#include "pesc/io/json.hpp"

namespace {

namespace fs = std::filesystem;

struct totals {
  int passed = 0;
  int failed = 0;
  int not_implemented = 0;
};

struct candidate {
  fs::path file;
  std::string shown;  ///< relative to the folder that was asked for
};

void print(const char* status, const std::string& kind, const std::string& path, const std::string& rest) {
  std::printf("%-15s  %-20s  %s  %s\n", status, kind.c_str(), path.c_str(), rest.c_str());
}

void fail(totals& t, const std::string& kind, const candidate& c, const std::string& why) {
  ++t.failed;
  print("FAIL", kind, c.shown, why);
}

void run(totals& t, const candidate& c, const std::string& kind, const golden::golden_case* loaded) {
  const golden::runner f = golden::find_runner(kind);
  if (f == nullptr || loaded == nullptr) {
    if (!golden::is_known_without_runner(kind)) return fail(t, kind, c, "no such kind");
    ++t.not_implemented;
    return print("not implemented", kind, c.shown, "");
  }
  golden::outcome result;
  try {
    f(*loaded, result);
  } catch (const std::exception& e) {
    return fail(t, kind, c, e.what());
  }
  if (!result.passed()) {
    fail(t, kind, c, result.summary());
    const std::size_t shown = std::min<std::size_t>(result.failures().size(), 8);
    for (std::size_t i = 0; i < shown; ++i)
      std::printf("                   %s\n", result.failures()[i].c_str());
    if (shown < result.failures().size())
      std::printf("                   and %zu more\n", result.failures().size() - shown);
    return;
  }
  ++t.passed;
  print("pass", kind, c.shown, result.summary());
}

void visit(totals& t, const candidate& c) {
  const std::string extension = c.file.extension().string();
  try {
    if (extension == ".safetensors") {
      const golden::golden_case loaded(pesc::safetensors_file::open(c.file.string()));
      if (loaded.has_text("kind")) run(t, c, loaded.text("kind"), &loaded);
    } else if (extension == ".json") {
      const pesc::json value = pesc::read_json(c.file.string());
      const pesc::json* kind = value.find("kind");
      if (kind != nullptr && kind->if_string() != nullptr) run(t, c, *kind->if_string(), nullptr);
    }
  } catch (const std::exception& e) {
    fail(t, "unreadable", c, e.what());
  }
}

/// \brief All files below a path, sorted.
std::vector<candidate> files_below(const fs::path& path) {
  if (!fs::is_directory(path)) return {{path, path.string()}};
  std::vector<candidate> out;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(path))
    if (entry.is_regular_file())
      out.push_back({entry.path(), entry.path().lexically_relative(path).string()});
  std::sort(out.begin(), out.end(), [](const candidate& a, const candidate& b) { return a.shown < b.shown; });
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<fs::path> paths;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--help" || argument == "-h") {
      std::puts(
          "golden [PATH...]   runs the reference cases in files and folders (default: those of the source "
          "tree)");
      return 0;
    }
    if (argument.starts_with("-")) {
      std::fprintf(stderr, "golden: there is no option %s; usage: golden [PATH...]\n", argv[i]);
      return 2;
    }
    std::error_code error;
    if (!fs::exists(argument, error)) {
      std::fprintf(stderr, "golden: %s: there is no such file or folder\n", argv[i]);
      return 2;
    }
    paths.emplace_back(argument);
  }
  if (paths.empty()) paths.emplace_back(fs::path(PESC_TEST_DATA) / "golden");
  totals t;
  for (const fs::path& path : paths) try {
      for (const candidate& c : files_below(path)) visit(t, c);
    } catch (const std::exception& e) {
      fail(t, "unreadable", {path, path.string()}, e.what());
    }
  std::printf("%d passed, %d failed, %d not implemented\n", t.passed, t.failed, t.not_implemented);
  return t.failed == 0 ? 0 : 1;
}
