// SPDX-License-Identifier: Apache-2.0
#include "pesc/train/run_log.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

namespace {

struct scratch_folder {
  std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("pesc_run_log_" + std::to_string(::getpid()));
  scratch_folder() {
    std::filesystem::remove_all(path);
    std::filesystem::create_directory(path);
  }
  ~scratch_folder() { std::filesystem::remove_all(path); }

  std::string read(const char* name) const {
    std::ifstream file{path / name, std::ios::binary};
    return {std::istreambuf_iterator<char>{file}, {}};
  }
  void write(const char* name, const std::string& content) const {
    std::ofstream{path / name, std::ios::binary} << content;
  }
};

const std::vector<std::int32_t> load{3, 0, 5, 1, 4, 3};

pesc::step_record example(pesc::index_t step) {
  pesc::step_record record;
  record.step = step;
  record.tokens = 4096 * step;
  record.targets = 100;
  record.loss = 1.0 / 3.0 + static_cast<double>(step);
  record.rate = 1e-3;
  record.grad_norm = 0.1;
  record.balance = 2.0;
  record.z = 1e-30;
  record.experts = 3;
  record.load = load;
  return record;
}

void run(const std::string& folder, pesc::index_t from, pesc::index_t to) {
  pesc::run_log log{folder, from};
  for (pesc::index_t step = from + 1; step <= to; ++step) {
    log.add(example(step));
    log.add(pesc::step_timing{step, 0.5 * static_cast<double>(step), 410.25, 123456789});
  }
}

}  // namespace

TEST_SUITE("train/run_log") {
  TEST_CASE("a line is one JSON object and its numbers read back to the same bits") {
    const std::string line = pesc::to_json_line(example(7));
    CHECK(line.back() == '\n');
    CHECK(line.find('\n') == line.size() - 1);
    const auto json = nlohmann::json::parse(line);
    CHECK(json["step"] == 7);
    CHECK(json["tokens"] == 28672);
    CHECK(json["loss"].get<double>() == 1.0 / 3.0 + 7.0);
    CHECK(json["lr"].get<double>() == 1e-3);
    CHECK(json["z"].get<double>() == 1e-30);
    CHECK(json["lb"].get<double>() == 2.0);
    CHECK(json["experts"] == nlohmann::json::parse("[[3,0,5],[1,4,3]]"));
    CHECK(!json.contains("skipped"));
    const auto timing =
        nlohmann::json::parse(pesc::to_json_line(pesc::step_timing{7, 3.5, 410.25, 123456789}));
    CHECK(timing["tokens_per_second"].get<double>() == 410.25);
    CHECK(timing["memory_bytes"] == 123456789);
  }

  TEST_CASE("numbers that are not finite are null and a skipped step says so") {
    pesc::step_record record = example(1);
    record.loss = std::numeric_limits<double>::quiet_NaN();
    record.grad_norm = std::numeric_limits<double>::infinity();
    record.skipped = true;
    record.load = {};
    const auto json = nlohmann::json::parse(pesc::to_json_line(record));
    CHECK(json["loss"].is_null());
    CHECK(json["grad_norm"].is_null());
    CHECK(json["skipped"] == true);
    CHECK(!json.contains("experts"));
  }

  TEST_CASE("a stopped and resumed run leaves the same log as a straight one") {
    const scratch_folder folder;
    run(folder.path.string(), 0, 40);
    const std::string straight = folder.read("log.jsonl");
    CHECK(std::count(straight.begin(), straight.end(), '\n') == 40);
    run(folder.path.string(), 0, 23);
    run(folder.path.string(), 17, 40);
    CHECK(folder.read("log.jsonl") == straight);
    CHECK(!std::filesystem::exists(folder.path / "log.jsonl.tmp"));
  }

  TEST_CASE("a last line that was cut, and what follows the resumed step, is dropped") {
    const scratch_folder folder;
    run(folder.path.string(), 0, 10);
    const std::string whole = folder.read("log.jsonl");
    std::string six;
    for (pesc::index_t step = 1; step <= 6; ++step) six += pesc::to_json_line(example(step));
    for (const std::size_t cut : {1u, 2u, 30u, 100u}) {
      CAPTURE(cut);
      folder.write("log.jsonl", whole.substr(0, six.size() + cut));
      { const pesc::run_log log{folder.path.string(), 8}; }
      CHECK(folder.read("log.jsonl") == six);
    }
    folder.write("log.jsonl", whole);
    { const pesc::run_log log{folder.path.string(), 6}; }
    CHECK(folder.read("log.jsonl") == six);
  }

  TEST_CASE("a line is in the file as soon as it was added") {
    const scratch_folder folder;
    pesc::run_log log{folder.path.string()};
    log.add(example(1));
    CHECK(folder.read("log.jsonl") == pesc::to_json_line(example(1)));
  }

  TEST_CASE("a folder or a disk that takes no line is an error") {
    CHECK_THROWS_AS(pesc::run_log{"/no/such/folder"}, pesc::io_error);
    if (!std::filesystem::exists("/dev/full")) return;
    const scratch_folder folder;
    std::filesystem::create_symlink("/dev/full", folder.path / "full.jsonl");
    pesc::detail::line_writer writer{(folder.path / "full.jsonl").string()};
    CHECK_THROWS_WITH_AS(writer.add("x\n"), doctest::Contains("No space left"), pesc::io_error);
  }
}
