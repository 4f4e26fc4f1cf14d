// SPDX-License-Identifier: Apache-2.0
#include <chrono>
#include <filesystem>

#include "pesc/quant/nf4.hpp"
#include "pesc/quant/unquantized.hpp"
#include "tool/common_options.hpp"
#include "tool/demo_report.hpp"
#include "tool/json_output.hpp"
#include "tool/stop_signal.hpp"
#include "tool/tune.hpp"
#include "tool/writing.hpp"

// demo: the whole way on bundled data, from a dense model to a tuned mixture of experts, with a report.

namespace pesc::tool {
namespace {

struct demo_options {
  std::string out;
  index_t steps = 300;
  index_t stories = 150;
  std::uint64_t seed = 1;
  machine on;
  bool quiet = false;
};

constexpr index_t experts = 8, top_k = 2, rank = 16, lora = 8;
constexpr double alpha = 16.0, share_of_stories = 0.2;

/// \brief The demo's steps, each using what the one before left.
class demo {
 public:
  explicit demo(const demo_options& o) : o_{o} {}

  int run() {
    say("dividing the bundled data");
    for (demo_domain& d : write_demo_data(o_.out + "/data"))
      result_.domains.push_back({std::move(d), {}, {}, {}, {}, {}});
    begin_dense();
    craft();
    if (!tune()) return done;
    look_at_tuned();
    return finish();
  }

 private:
  void say(const std::string& what) const {
    if (!o_.quiet) std::fprintf(stderr, "pesc: %s\n", what.c_str());
  }

  [[nodiscard]] evaluation measure(session& model, const demo_domain& domain) const {
    const llama_config& config = model.source().config.llama;
    const data_set set = read_data_set(domain.held_out, {}, tokens_.text, config, config.max_positions);
    return model.evaluate(set.tokens, [] { return true; });
  }

  [[nodiscard]] std::string sample(session& model, const demo_domain& domain) const {
    return continuation(model, tokens_.text, domain.prompt, 70, {.temperature = 0.5, .seed = o_.seed});
  }

  void begin_dense() {
    loaded_model<> loaded =
        open_model(bundled_file("stories260K.bin"), o_.on, o_.quiet, {unquantized<float>::info()});
    tokens_ = open_tokenizer(bundled_file("tok512.bin"), loaded);
    const auto dense = make_session(o_.on, std::move(loaded), o_.seed);
    say("measuring the dense model on held-out texts");
    for (domain_result& d : result_.domains) d.dense = measure(*dense, d.domain);
    say(pesc::detail::concat("letting it write ", o_.stories,
                             " stories, to be mixed in so that it does not forget them"));
    stories_ = write_stories(*dense, tokens_.text, o_.out + "/data", o_.stories, o_.seed);
  }

  void craft() {
    loaded_model<> loaded =
        open_model(bundled_file("stories260K.bin"), o_.on, o_.quiet, {nf4<64, double_quant<>>::info()});
    loaded.config.pesc = pesc_config{experts, top_k, rank, 1.0, true};
    loaded.lora = lora_config{lora, alpha, 0.0, {}};
    const auto crafted = make_session(o_.on, std::move(loaded), o_.seed);
    crafted->save(o_.out + "/crafted", tokens_.file, json::object());
    say(pesc::detail::concat("crafted: ", experts, " experts, top-", top_k, ", rank ", rank, ", LoRA ", lora,
                             ", NF4 with double quantisation; measuring it"));
    for (domain_result& d : result_.domains) {
      d.crafted = measure(*crafted, d.domain);
      d.before = sample(*crafted, d.domain);
    }
  }

  [[nodiscard]] std::vector<weighted_path> training_files() const {
    std::vector<weighted_path> out;
    for (const domain_result& d : result_.domains)
      if (!d.domain.train.empty()) out.push_back({d.domain.train, (1.0 - share_of_stories) / 4.0});
    out.push_back({stories_, share_of_stories});
    return out;
  }

  /// \brief False when it was stopped before its end.
  [[nodiscard]] bool tune() {
    run_options options;
    options.steps = o_.steps;
    options.seed = o_.seed;
    options.compute = o_.on.compute;
    options.isa = o_.on.isa;
    options.device = o_.on.device;
    const auto files = training_files();
    loaded_model<> loaded = open_model(o_.out + "/crafted", o_.on, o_.quiet);
    const prepared_data data = prepare_data(files, options, tokens_.text, loaded.config.llama, o_.quiet);
    const auto model = make_session(o_.on, std::move(loaded), o_.seed);
    tuning_plan plan = to_plan(options, 0);
    plan.sets = data.pointers();
    plan.weights = data.weights;
    plan.settings = run_settings(o_.out + "/crafted", files, options);
    plan.tokenizer = tokens_.file;
    plan.folder = o_.out + "/tuned";
    check_memory(*model, plan, 0.0, false, o_.quiet);
    pesc::detail::make_folders(plan.folder);
    const tuning_result tuned = run_with_logs(*model, plan, 0, o_.quiet, [&](const step_record& r) {
      result_.steps.push_back(static_cast<double>(r.step));
      result_.losses.push_back(r.loss);
      result_.balances.push_back(r.balance);
    });
    result_.seconds = tuned.seconds;
    result_.tokens_per_second =
        tuned.seconds > 0 ? static_cast<double>(tuned.trained_tokens) / tuned.seconds : 0.0;
    note_settings(options, tuned);
    if (tuned.end == run_end::finished) return true;
    std::printf("stopped after step %lld of %lld; saved in %s\nto go on: pesc tune --resume %s\n",
                static_cast<long long>(tuned.counters.step), static_cast<long long>(options.steps),
                plan.folder.c_str(), plan.folder.c_str());
    return false;
  }

  void note_settings(const run_options& options, const tuning_result& tuned) {
    char speed[64];
    std::snprintf(speed, sizeof speed, "%.0f tokens per second, %.0f s", result_.tokens_per_second,
                  result_.seconds);
    result_.settings = {{"experts", pesc::detail::concat(experts, ", top-", top_k, ", adapter rank ", rank)},
                        {"low-rank updates", pesc::detail::concat("rank ", lora, ", alpha ", alpha)},
                        {"frozen weights", "NF4 in blocks of 64, scales quantised again"},
                        {"steps", pesc::detail::concat(options.steps, " of ", options.micro_batch,
                                                       " sequences of ", options.length, " tokens")},
                        {"tokens", pesc::detail::concat(tuned.counters.tokens)},
                        {"learning rate", pesc::detail::concat(options.lr, ", warm-up ", options.warmup,
                                                               " steps, ", options.schedule)},
                        {"speed", speed},
                        {o_.on.device == "cuda" ? "device" : "instruction set",
                         o_.on.device == "cuda" ? "CUDA" : cpu::name_of(instruction_set(o_.on))}};
  }

  /// \brief Measures what was saved, not what is in memory.
  void look_at_tuned() {
    say("measuring the tuned model");
    const auto tuned = make_session(o_.on, open_model(o_.out + "/tuned", o_.on, o_.quiet), o_.seed);
    for (domain_result& d : result_.domains) {
      d.tuned = measure(*tuned, d.domain);
      d.after = sample(*tuned, d.domain);
    }
    result_.layers = tuned->source().config.llama.layers;
    result_.experts = experts;
  }

  int finish() {
    print_result(result_);
    write_json_output(o_.out + "/summary.json", to_json(result_));
    write_report(o_.out + "/report.html", to_report(result_));
    std::printf("\nreport: %s/report.html\nto let it write: pesc generate --model %s/tuned --prompt TEXT\n",
                o_.out.c_str(), o_.out.c_str());
    return done;
  }

  const demo_options& o_;
  opened_tokenizer tokens_;
  std::string stories_;
  demo_result result_;
};

std::string default_folder() {
  const bool built_here = pesc::detail::is_folder(PESC_BINARY_DIR);
  return built_here ? std::string{PESC_BINARY_DIR} + "/demo" : "pesc-demo";
}

}  // namespace

command add_demo(CLI::App& program) {
  auto o = std::make_shared<demo_options>();
  o->out = default_folder();
  CLI::App& app =
      *program.add_subcommand("demo", "Craft, tune and measure a small model on bundled data, with a report");
  app.add_option("--out", o->out, "Folder for data, models, summary.json and report.html")
      ->capture_default_str();
  add_number<index_t>(app, "--steps", o->steps, 1, 1'000'000, "Optimiser steps");
  add_number<index_t>(app, "--stories", o->stories, 1, 100'000,
                      "Stories that the dense model writes, to be mixed in");
  add_seed_option(app, o->seed);
  add_machine_options(app, o->on);
  add_quiet_option(app, o->quiet);
  app.footer("Example: pesc demo --out demo");
  return [o] { return demo(*o).run(); };
}

}  // namespace pesc::tool
