// SPDX-License-Identifier: Apache-2.0

// Runs reference cases: golden [--device cpu|cuda] [PATH...]. A safetensors file whose metadata has
// `kind`, and a JSON file that has it, is a case; everything else belongs to a case beside it.

#include <algorithm>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "golden.hpp"
#include "pesc/io/json.hpp"

namespace {

namespace fs = std::filesystem;

struct candidate {
  fs::path file;
  std::string shown;  ///< relative to the folder that was asked for
};

/// \brief What the arguments ask for.
struct request {
  golden::device device = golden::device::cpu;
  std::vector<fs::path> paths;
};

/// \brief Runs cases on a device, prints a line for each and counts them.
class session {
 public:
  explicit session(golden::device where) : device_{where} {}

  void visit(const candidate& c) {
    const std::string extension = c.file.extension().string();
    try {
      if (extension == ".safetensors") {
        const golden::golden_case loaded(pesc::safetensors_file::open(c.file.string()));
        if (loaded.has_text("kind")) run(c, loaded.text("kind"), loaded);
      } else if (extension == ".json") {
        const golden::json_case loaded{c.file.parent_path().string(), pesc::read_json(c.file.string())};
        const pesc::json* kind = loaded.value.find("kind");
        if (kind != nullptr && kind->if_string() != nullptr) run(c, *kind->if_string(), loaded);
      }
    } catch (const std::exception& e) {
      fail("unreadable", c, e.what());
    }
  }

  void fail(const std::string& kind, const candidate& c, const std::string& why) {
    ++failed_;
    print("FAIL", kind, c, why);
  }

  /// \returns the exit status
  [[nodiscard]] int finish() const {
    std::printf("%d passed, %d failed, %d not implemented", passed_, failed_, not_implemented_);
    if (skipped_ > 0) std::printf(", %d skipped", skipped_);
    if (device_ != golden::device::cpu) std::printf(", %d not run on this device", not_run_);
    std::puts("");
    return failed_ == 0 ? 0 : 1;
  }

 private:
  void run(const candidate& c, const std::string& kind, const golden::golden_case& loaded) {
    if (golden::find_runner(kind, golden::device::cpu) == nullptr) return lack(c, kind);
    const golden::runner f = golden::find_runner(kind, device_);
    if (f == nullptr) return leave(c, kind);
    finish_case(c, kind, [&](golden::outcome& result) { f(loaded, result); });
  }

  void run(const candidate& c, const std::string& kind, const golden::json_case& loaded) {
    const golden::json_runner f = golden::find_json_runner(kind);
    if (f == nullptr) return lack(c, kind);
    if (device_ != golden::device::cpu) return leave(c, kind);
    finish_case(c, kind, [&](golden::outcome& result) { f(loaded, result); });
  }

  void lack(const candidate& c, const std::string& kind) {
    if (!golden::is_known_without_runner(kind)) return fail(kind, c, "no such kind");
    ++not_implemented_;
    print("not implemented", kind, c, "");
  }

  void leave(const candidate& c, const std::string& kind) {
    ++not_run_;
    print("not run on this device", kind, c, "");
  }

  template <class Run>
  void finish_case(const candidate& c, const std::string& kind, Run&& compare) {
    golden::outcome result;
    try {
      compare(result);
    } catch (const std::exception& e) {
      return fail(kind, c, e.what());
    }
    if (!result.skipped().empty()) {
      ++skipped_;
      return print("skipped", kind, c, result.skipped());
    }
    if (!result.passed()) {
      fail(kind, c, result.summary());
      const std::size_t shown = std::min<std::size_t>(result.failures().size(), 8);
      for (std::size_t i = 0; i < shown; ++i)
        std::printf("                   %s\n", result.failures()[i].c_str());
      if (shown < result.failures().size())
        std::printf("                   and %zu more\n", result.failures().size() - shown);
      return;
    }
    ++passed_;
    print("pass", kind, c, result.summary());
  }

  void print(const char* status, const std::string& kind, const candidate& c, const std::string& rest) const {
    // The longest status of the device decides.
    const int width = device_ == golden::device::cpu ? 15 : 22;
    std::printf("%-*s  %-20s  %s  %s\n", width, status, kind.c_str(), c.shown.c_str(), rest.c_str());
  }

  golden::device device_;
  int passed_ = 0;
  int failed_ = 0;
  int not_implemented_ = 0;
  int not_run_ = 0;
  int skipped_ = 0;
};

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

/// \brief Reads `--device NAME`.
/// \returns false, after a line that says why, for a device that is unknown or not in this program
bool read_device(const char* name, golden::device& out) {
  const std::string_view given = name == nullptr ? "" : name;
  if (given != "cpu" && given != "cuda") {
    std::fprintf(stderr, "golden: --device %s: there is no such device; known: cpu, cuda\n",
                 name == nullptr ? "without a name" : name);
    return false;
  }
  out = given == "cpu" ? golden::device::cpu : golden::device::cuda;
  if (golden::is_built(out)) return true;
  std::fprintf(stderr, "golden: --device %s: this program was built without CUDA (CMake option PESC_CUDA)\n",
               name);
  return false;
}

/// \returns false, after a line that says why, for wrong usage
bool read_arguments(int argc, char** argv, request& out) {
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--device") {
      if (!read_device(argv[++i], out.device)) return false;
      continue;
    }
    if (argument.starts_with("-")) {
      std::fprintf(stderr, "golden: there is no option %s; usage: golden [--device cpu|cuda] [PATH...]\n",
                   argv[i]);
      return false;
    }
    std::error_code error;
    if (!fs::exists(argument, error)) {
      std::fprintf(stderr, "golden: %s: there is no such file or folder\n", argv[i]);
      return false;
    }
    out.paths.emplace_back(argument);
  }
  if (out.paths.empty()) out.paths.emplace_back(fs::path(PESC_TEST_DATA) / "golden");
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i)
    if (const std::string_view argument = argv[i]; argument == "--help" || argument == "-h") {
      std::puts(
          "golden [--device cpu|cuda] [PATH...]   runs the reference cases in files and folders\n"
          "(default: on the CPU, those of the source tree)");
      return 0;
    }
  request wanted;
  if (!read_arguments(argc, argv, wanted)) return 2;
  session all(wanted.device);
  for (const fs::path& path : wanted.paths) try {
      for (const candidate& c : files_below(path)) all.visit(c);
    } catch (const std::exception& e) {
      all.fail("unreadable", {path, path.string()}, e.what());
    }
  return all.finish();
}
