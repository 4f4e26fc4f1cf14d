// SPDX-License-Identifier: Apache-2.0
#include <filesystem>

#include "pesc/train/memory.hpp"
#include "pesc/train/progress.hpp"
#include "tool/program.hpp"
#include "tool/stop_signal.hpp"
#include "tool/tune.hpp"

namespace pesc::tool {

std::string absolute(const std::string& path) {
  return std::filesystem::absolute(path).lexically_normal().string();
}

prepared_data prepare_data(const std::vector<weighted_path>& files, const run_options& options,
                           const tokenizer& text, const llama_config& model, bool quiet) {
  prepared_data out;
  // Packed records are split, not cut, so only the model's own limit applies; padded ones must fit a row.
  const index_t length = options.layout == "pad" ? options.length : model.max_positions;
  for (const weighted_path& file : files) {
    out.sets.push_back(read_data_set(file.path, options.reading, text, model, length));
    out.weights.push_back(file.weight);
    if (!quiet) std::fprintf(stderr, "pesc: %s\n", out.sets.back().description.c_str());
  }
  return out;
}

void check_memory(session& model, const tuning_plan& plan, double limit_gb, bool force, bool quiet) {
  const memory_estimate need = model.estimate(plan);
  if (!quiet)
    std::fprintf(stderr,
                 "pesc: memory: weights %s, parameters %s, gradients %s, optimiser %s, activations %s, "
                 "scratch %s, total %s\n",
                 bytes_text(need.weights).c_str(), bytes_text(need.parameters).c_str(),
                 bytes_text(need.gradients).c_str(), bytes_text(need.optimizer).c_str(),
                 bytes_text(need.activations).c_str(), bytes_text(need.scratch).c_str(),
                 bytes_text(need.total()).c_str());
  // Weights and parameters are in memory already.
  const index_t taken = need.weights + need.parameters;
  const index_t free = available_memory();
  const index_t have = limit_gb > 0 ? static_cast<index_t>(limit_gb * 1e9) : free < 0 ? -1 : free + taken;
  if (have < 0 || need.total() <= have || force) return;
  pesc::detail::raise<io_error>(
      pesc::detail::concat("tuning needs ", bytes_text(need.total()), ", ", bytes_text(have),
                           limit_gb > 0 ? " are allowed" : " are free", ": try --length ",
                           std::max<index_t>(2, plan.batch.length / 2), " or --micro-batch ",
                           std::max<index_t>(1, plan.batch.sequences / 2),
                           " with more --accumulate, or --recompute; --force starts anyway"));
}

void check_disk(const session& model, const std::string& folder, bool force) {
  const index_t state = model.source().weights.bytes() + 12 * model.trainable_count();
  const index_t free = free_disk(folder);
  if (free < 0 || force || free >= 3 * state) return;
  pesc::detail::raise<io_error>(pesc::detail::concat(folder, ": needs ", bytes_text(3 * state),
                                                     " for three states, ", bytes_text(free),
                                                     " free. --force starts anyway"));
}

json run_settings(const std::string& model, const std::vector<weighted_path>& data,
                  const run_options& options) {
  json files = json::array();
  for (const weighted_path& d : data)
    files.push_back(std::move(describe_file(absolute(d.path)).set("weight", d.weight)));
  json out = json::object();
  return std::move(
      out.set("model", absolute(model)).set("data", std::move(files)).set("options", to_json(options)));
}

tuning_result run_with_logs(session& model, const tuning_plan& plan, index_t first, bool quiet,
                            const std::function<void(const step_record&)>& on_step) {
  const stop_signal signal;
  run_log log(plan.folder, first);
  progress_options shown = progress_options_for(stderr);
  shown.quiet = quiet;
  progress line(shown);
  index_t seen = -1;
  tuning_hooks hooks;
  hooks.on_step = [&](const step_record& r) {
    const index_t tokens = seen < 0 ? 0 : r.tokens - seen;
    seen = r.tokens;
    line.update(r.step, plan.run.steps, r.loss, tokens, r.balance);
    log.add(r);
    if (on_step) on_step(r);
    log.add(step_timing{r.step, line.seconds(), line.tokens_per_second(), resident_memory()});
    if (r.skipped) {
      line.finish();
      std::fprintf(stderr, "pesc: step %lld: a number was not finite, the step was left out\n",
                   static_cast<long long>(r.step));
    }
  };
  hooks.stop = [] { return stop_signal::requested(); };
  return model.tune(plan, hooks);
}

}  // namespace pesc::tool
