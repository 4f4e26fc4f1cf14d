// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "tool/program.hpp"

using support::bundled;
using support::pesc_program;
using support::read_text;

namespace {

std::vector<std::string> run_of(const std::string& model, const std::string& out,
                                std::vector<std::string> more = {}) {
  std::vector<std::string> a{"tune",
                             "--model",
                             model,
                             "--data",
                             bundled("mbpp.jsonl") + ":0.7",
                             "--data",
                             bundled("self_instruct_seed_tasks.jsonl") + ":0.3",
                             "--micro-batch",
                             "2",
                             "--length",
                             "64",
                             "--accumulate",
                             "2",
                             "--adapter-dropout",
                             "0.1",
                             "--lora-dropout",
                             "0.05",
                             "--quiet",
                             "--out",
                             out};
  a.insert(a.end(), more.begin(), more.end());
  return a;
}

const char* const state_files[] = {"log.jsonl", "model.safetensors", "adapter_model.safetensors",
                                   "optimizer.safetensors", "run.json"};

void check_same(const std::string& a, const std::string& b) {
  for (const char* file : state_files) {
    CAPTURE(file);
    const std::string text = read_text(a + '/' + file);
    CHECK(!text.empty());
    // Not compared inside CHECK, which would print both files.
    const bool same = text == read_text(b + '/' + file);
    CHECK(same);
  }
}

}  // namespace

TEST_SUITE("tool/tune") {
  TEST_CASE(
      "40 steps are 17 and 23 resumed ones, bit for bit, in the same folder and in another, whatever the "
      "threads") {
    const support::temporary_folder folder;
    const std::string model = support::crafted(folder);
    REQUIRE(pesc_program(run_of(model, folder.path("whole"), {"--steps", "40", "--threads", "1"})).status ==
            0);
    const auto first = pesc_program(
        run_of(model, folder.path("parts"), {"--steps", "40", "--stop-after", "17", "--save-every", "10"}));
    REQUIRE(first.status == 0);
    CHECK(first.out.find("pesc tune --resume") != std::string::npos);
    REQUIRE(pesc_program({"tune", "--resume", folder.path("parts"), "--out", folder.path("other"),
                          "--threads", "3", "--save-every", "100"})
                .status == 0);
    check_same(folder.path("whole"), folder.path("other"));
    REQUIRE(pesc_program({"tune", "--resume", folder.path("parts"), "--quiet"}).status == 0);
    for (const char* file :
         {"log.jsonl", "model.safetensors", "adapter_model.safetensors", "optimizer.safetensors"})
      CHECK(read_text(folder.path("whole") + '/' + file) == read_text(folder.path("parts") + '/' + file));
  }

  TEST_CASE("a killed run goes on from its last complete state") {
    const support::temporary_folder folder;
    const std::string model = support::crafted(folder);
    REQUIRE(
        pesc_program(run_of(model, folder.path("whole"), {"--steps", "120", "--save-every", "10"})).status ==
        0);
    REQUIRE(support::signal_program_at(
                run_of(model, folder.path("killed"), {"--steps", "120", "--save-every", "10"}),
                folder.path("killed") + "/checkpoints/step-000020", "KILL") == 128 + 9);
    REQUIRE(pesc_program({"tune", "--resume", folder.path("killed"), "--quiet"}).status == 0);
    check_same(folder.path("whole"), folder.path("killed"));
  }

  TEST_CASE("the first signal saves, and the run can go on") {
    const support::temporary_folder folder;
    const std::string model = support::crafted(folder);
    REQUIRE(support::signal_program_at(run_of(model, folder.path("run"), {"--steps", "5000"}),
                                       folder.path("run") + "/log.jsonl", "INT") == 0);
    CHECK(std::filesystem::exists(folder.path("run") + "/manifest.json"));
    const auto on = pesc_program({"tune", "--resume", folder.path("run"), "--stop-after", "2", "--quiet"});
    CHECK(on.status == 0);
    CHECK(on.out.find("stopped after step") != std::string::npos);
  }

  TEST_CASE("the last two saved states stay") {
    const support::temporary_folder folder;
    const std::string model = support::crafted(folder);
    REQUIRE(pesc_program(run_of(model, folder.path("run"), {"--steps", "9", "--save-every", "2"})).status ==
            0);
    int states = 0;
    for (const auto& entry : std::filesystem::directory_iterator(folder.path("run") + "/checkpoints")) {
      ++states;
      const std::string name = entry.path().filename().string();
      CHECK((name == "step-000006" || name == "step-000008"));
    }
    CHECK(states == 2);
  }

  TEST_CASE("an option that contradicts the run is refused with both values") {
    const support::temporary_folder folder;
    const std::string model = support::crafted(folder);
    REQUIRE(pesc_program(run_of(model, folder.path("run"), {"--steps", "3", "--stop-after", "1"})).status ==
            0);
    const auto rate = pesc_program({"tune", "--resume", folder.path("run"), "--lr", "0.02"});
    CHECK(rate.status == 2);
    CHECK(rate.says("0.02"));
    CHECK(rate.says("0.001"));
    CHECK(pesc_program({"tune", "--resume", folder.path("run"), "--data", bundled("gsm8k_test.jsonl")})
              .status == 2);
    CHECK(pesc_program({"tune", "--resume", folder.path("run"), "--model", folder.path("x")}).status == 2);
    CHECK(pesc_program({"tune", "--resume", folder.path("run"), "--lr", "0.001", "--steps", "3", "--quiet"})
              .status == 0);
  }

  TEST_CASE("data that changed since the run began is refused") {
    const support::temporary_folder folder;
    const std::string model = support::crafted(folder);
    const std::string data = folder.write("d.jsonl", "{\"text\":\"one two three four five six\"}\n");
    REQUIRE(pesc_program({"tune", "--model", model, "--data", data, "--steps", "4", "--stop-after", "2",
                          "--length", "16", "--micro-batch", "1", "--out", folder.path("run")})
                .status == 0);
    folder.write("d.jsonl", "{\"text\":\"one two three four five six seven\"}\n");
    const auto refused = pesc_program({"tune", "--resume", folder.path("run")});
    CHECK(refused.status == 1);
    CHECK(refused.says("same data"));
  }

  TEST_CASE("--check tries everything and leaves nothing") {
    const support::temporary_folder folder;
    const std::string model = support::crafted(folder);
    const auto checked = pesc_program(run_of(model, folder.path("run"), {"--check"}));
    CHECK(checked.status == 0);
    CHECK(checked.out.find("check passed") != std::string::npos);
    CHECK(folder.entries() == 1);
  }

  TEST_CASE("the dense twin, other layouts, bf16 and recomputation train") {
    const support::temporary_folder folder;
    const std::string model = support::crafted(folder, {"--experts", "0"});
    for (const std::vector<std::string>& more :
         std::vector<std::vector<std::string>>{{"--layout", "pad"},
                                               {"--compute", "bf16"},
                                               {"--recompute"},
                                               {"--schedule", "linear"},
                                               {"--z", "0.001"}}) {
      const auto result = pesc_program(run_of(model, folder.path("run"), [&] {
        auto all = more;
        all.insert(all.end(), {"--steps", "2"});
        return all;
      }()));
      CAPTURE(more[0]);
      CHECK(result.status == 0);
    }
    const auto log = read_text(folder.path("run") + "/log.jsonl");
    CHECK(log.find("\"step\":2") != std::string::npos);
    CHECK(log.find("experts") == std::string::npos);
  }

  TEST_CASE("the updates of an adapter are tuned further") {
    const support::temporary_folder folder;
    const std::string twin = support::crafted(folder, {"--experts", "0", "--lora", "3"});
    CHECK(pesc_program({"convert", "--model", twin, "--to", "peft", folder.path("peft")}).status == 0);
    const auto run = pesc_program(run_of(bundled("stories260K.bin"), folder.path("out"),
                                         {"--adapter", folder.path("peft"), "--steps", "2"}));
    CAPTURE(run.err);
    CHECK(run.status == 0);
    const auto saved = nlohmann::json::parse(read_text(folder.path("out") + "/adapter_config.json"));
    CHECK(saved.at("r") == 3);
    const auto settings = nlohmann::json::parse(read_text(folder.path("out") + "/run.json"));
    CHECK(settings.at("adapter") == folder.path("peft"));
    const auto again =
        pesc_program({"tune", "--resume", folder.path("out"), "--adapter", folder.path("peft"), "--quiet"});
    CHECK(again.status == 2);
    CHECK(again.says("--resume goes on with the updates of the run"));
  }

  TEST_CASE("memory is told before the start, and too little is refused with advice") {
    const support::temporary_folder folder;
    const std::string model = support::crafted(folder);
    const auto refused = pesc_program({"tune", "--model", model, "--data", bundled("mbpp.jsonl"), "--out",
                                       folder.path("run"), "--memory", "0.001"});
    CHECK(refused.status == 1);
    CHECK(refused.says("activations"));
    CHECK(refused.says("--micro-batch"));
    CHECK(!std::filesystem::exists(folder.path("run")));
  }

  TEST_CASE("a disk that is full while saving leaves the old state usable") {
    const support::temporary_folder folder;
    const std::string model = support::crafted(folder);
    REQUIRE(pesc_program(run_of(model, folder.path("run"), {"--steps", "6", "--stop-after", "2"})).status ==
            0);
    const std::string before = read_text(folder.path("run") + "/model.safetensors");
    const auto full = pesc_program({"tune", "--resume", folder.path("run"), "--quiet"}, "ulimit -f 200;");
    CHECK(full.status == 1);
    CHECK(full.error_lines() == 1);
    CHECK(read_text(folder.path("run") + "/model.safetensors") == before);
    CHECK(pesc_program({"tune", "--resume", folder.path("run"), "--quiet"}).status == 0);
  }

  TEST_CASE("numbers that become infinite end the run with status 3") {
    const support::temporary_folder folder;
    const std::string model = support::crafted(folder);
    const auto result = pesc_program(
        run_of(model, folder.path("run"),
               {"--steps", "200", "--lr", "10", "--clip", "0", "--warmup", "0", "--schedule", "constant"}));
    CHECK(result.status == 3);
    CHECK(result.says("is not finite"));
    CHECK(result.says("learning rate"));
  }
}
