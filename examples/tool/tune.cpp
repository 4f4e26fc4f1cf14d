// SPDX-License-Identifier: Apache-2.0
#include "tool/tune.hpp"

#include <filesystem>

#include "pesc/model/run_state.hpp"
#include "tool/common_options.hpp"
#include "tool/stop_signal.hpp"

// tune: from options or a saved run to data, model, checks, steps and saved states.

namespace pesc::tool {
namespace {

struct tune_options {
  std::string model, out, resume, tokenizer;
  adapter_choice adapter;
  std::vector<std::string> data;
  run_options run;
  std::map<std::string, CLI::Option*> given;
  index_t stop_after = 0;
  int threads = 0;
  double memory_limit = 0.0;
  bool force = false, check = false, quiet = false, map = false;
};

/// \brief A run as its options or its saved state describe it.
struct run_setup {
  std::string model;  ///< what was named; a resumed run reads `read_from`
  std::string read_from, out, tokenizer;
  std::vector<weighted_path> data;
  run_options options;
  std::optional<loaded_run> resume;
};

std::vector<weighted_path> parse_data(const std::vector<std::string>& names) {
  std::vector<weighted_path> out;
  for (const std::string& name : names) {
    try {
      out.push_back(parse_weighted_path(name));
    } catch (const shape_error& e) {
      refuse_usage(e.what());
    }
  }
  return out;
}

run_setup new_run(const tune_options& o) {
  if (o.model.empty() || o.data.empty() || (o.out.empty() && !o.check))
    refuse_usage("tune needs --model, --data and --out, or --resume");
  return {o.model, o.model, o.out, o.tokenizer, parse_data(o.data), o.run, {}};
}

void refuse_other_data(const std::vector<weighted_path>& given, const std::vector<weighted_path>& saved,
                       const std::string& folder) {
  const auto text = [](const std::vector<weighted_path>& data) {
    std::string out;
    for (const weighted_path& d : data)
      out += pesc::detail::concat(out.empty() ? "" : " ", absolute(d.path), ':', d.weight);
    return out;
  };
  if (text(given) != text(saved))
    refuse_usage("--data ", text(given), " contradicts the run in ", folder, ", which has ", text(saved));
}

run_setup saved_run(const tune_options& o) {
  if (!o.adapter.folder.empty() || o.adapter.merge)
    refuse_usage("--resume goes on with the updates of the run; --adapter and --merge are for its beginning");
  run_setup out;
  out.resume = load_run(o.resume);
  if (!out.resume->place.note.empty()) warn({out.resume->place.note}, o.quiet);
  const std::string file = out.resume->place.folder + '/' + run_file;
  const json_fields run{out.resume->run, file};
  out.options = parse_run_options(run.get_object("options"));
  refuse_contradictions(o.run, o.given, out.options, o.resume);
  if (o.given.at("save-every")->count() > 0) out.options.save_every = o.run.save_every;
  out.model = run.get_string("model");
  if (!o.model.empty() && absolute(o.model) != out.model)
    refuse_usage("--model ", absolute(o.model), " contradicts the run in ", o.resume, ", which began from ",
                 out.model);
  for (const json& entry : run.get_list("data")) {
    check_described_file(entry, file);
    const json_fields f{entry, file};
    out.data.push_back({f.get_string("path"), f.get_double("weight")});
  }
  if (!o.data.empty()) refuse_other_data(parse_data(o.data), out.data, o.resume);
  out.read_from = out.resume->place.folder;
  out.out = o.out.empty() ? o.resume : o.out;
  out.tokenizer = o.tokenizer;
  return out;
}

/// \brief A run that goes on in another folder takes its logs along.
void bring_logs(const std::string& from, const std::string& to) {
  if (absolute(from + "/.") == absolute(to + "/.")) return;
  for (const char* name : {"/log.jsonl", "/timing.jsonl"})
    if (pesc::detail::exists(from + name)) pesc::detail::copy_file(from + name, to + name);
}

/// \brief A folder for --check that is removed again.
class check_folder {
 public:
  explicit check_folder(const std::string& out) {
    path_ =
        pesc::detail::concat(out.empty() ? (std::filesystem::temp_directory_path() / "pesc").string() : out,
                             ".check-", static_cast<long>(::getpid()));
  }
  check_folder(const check_folder&) = delete;
  check_folder& operator=(const check_folder&) = delete;
  ~check_folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

void report_end(const tuning_result& result, const run_setup& setup) {
  const double speed = result.seconds > 0 ? static_cast<double>(result.trained_tokens) / result.seconds : 0.0;
  std::printf("%s after step %lld of %lld, %lld tokens, %.0f tok/s; saved in %s\n",
              result.end == run_end::finished ? "finished" : "stopped",
              static_cast<long long>(result.counters.step), static_cast<long long>(setup.options.steps),
              static_cast<long long>(result.counters.tokens), speed, setup.out.c_str());
  if (result.end == run_end::stopped) std::printf("to go on: pesc tune --resume %s\n", setup.out.c_str());
}

/// \brief One step, saved and loaded again, in a folder of its own.
int check_run(session& model, tuning_plan plan, const run_setup& setup, const machine& on) {
  const check_folder folder(setup.out);
  plan.folder = folder.path();
  plan.run.stop_after = 1;
  plan.run.save_every = 0;
  double loss = 0.0;
  static_cast<void>(model.tune(plan, {[&](const step_record& r) { loss = r.loss; }, [] { return false; }}));
  static_cast<void>(load_run(folder.path()));
  static_cast<void>(make_session(on, open_model(folder.path(), {.map = on.map}, true), 0));
  std::printf("check passed: tokenizer, data, memory, one step (loss %.4f), one save and load\n", loss);
  return done;
}

int tune_command(const tune_options& o) {
  run_setup setup = o.resume.empty() ? new_run(o) : saved_run(o);
  const machine on{o.threads, setup.options.isa, setup.options.compute, o.map, setup.options.device};
  loaded_model<> loaded = open_model(setup.read_from, on, o.quiet, {}, o.adapter);
  const llama_config config = loaded.config.llama;
  if (!loaded.sparse() && !loaded.lora)
    pesc::detail::raise<format_error>(
        setup.read_from + ": this model has nothing to train. Craft it first: pesc craft --model " +
        setup.read_from + " --out DIR");
  if (setup.options.length > config.max_positions)
    refuse_usage("--length ", setup.options.length, ": this model holds at most ", config.max_positions,
                 " tokens");
  const opened_tokenizer tokens = open_tokenizer(setup.tokenizer, loaded);
  const prepared_data data = prepare_data(setup.data, setup.options, tokens.text, config, o.quiet);

  const auto model = make_session(on, std::move(loaded), setup.options.seed);
  tuning_plan plan = to_plan(setup.options, std::max(config.bos, 0));
  plan.sets = data.pointers();
  plan.weights = data.weights;
  plan.resume = setup.resume ? &*setup.resume : nullptr;
  plan.settings = run_settings(setup.model, setup.data, setup.options);
  if (!o.adapter.folder.empty()) plan.settings.set("adapter", absolute(o.adapter.folder));
  plan.tokenizer = tokens.file;
  plan.run.stop_after = o.stop_after;
  check_memory(*model, plan, o.memory_limit, o.force, o.quiet);
  if (o.check) return check_run(*model, plan, setup, on);

  pesc::detail::make_folders(setup.out);
  check_disk(*model, setup.out, o.force);
  plan.folder = setup.out;
  if (setup.resume) bring_logs(o.resume, setup.out);
  const tuning_result result =
      run_with_logs(*model, plan, setup.resume ? setup.resume->place.manifest->step : 0, o.quiet);
  report_end(result, setup);
  return done;
}

}  // namespace

command add_tune(CLI::App& program) {
  auto o = std::make_shared<tune_options>();
  CLI::App& app =
      *program.add_subcommand("tune", "Train adapters, routers and low-rank updates on data files");
  app.add_option("--model", o->model, "Folder of a crafted model");
  app.add_option(
      "--data", o->data,
      "Data files, .jsonl or .txt, each with its share behind a colon: FILE:0.3 (default share: 1)");
  app.add_option("--out", o->out,
                 "Folder for the tuned model, its states and logs (default with --resume: the same folder)");
  app.add_option("--resume", o->resume, "Go on with the run in this folder; its options come from there");
  o->given = add_run_options(app, o->run);
  add_number<index_t>(app, "--stop-after", o->stop_after, 0, 1'000'000'000,
                      "Stop and save after this many steps; 0: no");
  app.add_flag("--check", o->check, "Try tokenizer, data, memory, one step, one save and load; then end");
  add_number(app, "--memory", o->memory_limit, 0.0, 1e6,
             "Memory in GB that may be used; 0: what is available");
  app.add_flag("--force", o->force, "Start even if memory or disk seem too small");
  add_number(app, "--threads", o->threads, 0, 1024,
             "Threads; 0: one per hardware thread. Results do not depend on it");
  app.add_flag("--mmap", o->map, "Map model files instead of reading them");
  add_adapter_options(app, o->adapter);
  add_tokenizer_option(app, o->tokenizer);
  add_quiet_option(app, o->quiet);
  app.footer(
      "Examples:\n  pesc tune --model crafted --data maths.jsonl:0.7 --data code.jsonl:0.3 --steps 300 --out "
      "runs/first\n"
      "  pesc tune --resume runs/first");
  return [o] { return tune_command(*o); };
}

}  // namespace pesc::tool
