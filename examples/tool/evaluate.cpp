// SPDX-License-Identifier: Apache-2.0
#include "pesc/io/json.hpp"
#include "tool/common_options.hpp"
#include "tool/data_sets.hpp"
#include "tool/json_output.hpp"
#include "tool/weights.hpp"

namespace pesc::tool {
namespace {

struct evaluate_options {
  std::string model, tokenizer, json_file;
  std::vector<std::string> data;
  data_options reading;
  index_t length = 0;
  std::string weights = "keep";
  adapter_choice adapter;
  machine on;
  bool quiet = false;
};

void print_line(std::FILE* to, const std::string& path, const evaluation& found) {
  std::fprintf(to, "%-40s loss %.4f  %lld target tokens  %lld records\n", path.c_str(), found.loss,
               static_cast<long long>(found.tokens), static_cast<long long>(found.records));
  std::fflush(to);
}

int evaluate_command(const evaluate_options& o) {
  loaded_model<> loaded = open_model(o.model, o.on, o.quiet, {format_named(o.weights, 64)}, o.adapter);
  const opened_tokenizer tokens = open_tokenizer(o.tokenizer, loaded);
  const llama_config config = loaded.config.llama;
  if (o.length > config.max_positions)
    refuse_usage("--length ", o.length, ": this model holds at most ", config.max_positions, " tokens");
  const index_t length = o.length > 0 ? o.length : config.max_positions;
  std::vector<data_set> sets;
  for (const std::string& path : o.data)
    sets.push_back(read_data_set(path, o.reading, tokens.text, config, length));
  const auto model = make_session(o.on, std::move(loaded), 0);
  json by_file = json::object();
  for (const data_set& set : sets) {
    if (!o.quiet) std::fprintf(stderr, "pesc: %s\n", set.description.c_str());
    const evaluation found = model->evaluate(set.tokens, [] { return true; });
    print_line(text_output(o.json_file), set.path, found);
    json entry = json::object();
    entry.set("loss", found.loss).set("tokens", found.tokens).set("records", found.records);
    by_file.set(set.path, std::move(entry));
  }
  json out = json::object();
  write_json_output(o.json_file, out.set("data", std::move(by_file)));
  return done;
}

}  // namespace

command add_evaluate(CLI::App& program) {
  auto o = std::make_shared<evaluate_options>();
  CLI::App& app =
      *program.add_subcommand("evaluate", "Measure losses on data files, in nats per target token");
  app.add_option("--model", o->model, "Model folder, GGUF or llama2.c file")->required();
  app.add_option("--data", o->data, "Data files, .jsonl or .txt")->required();
  app.add_option("--json", o->json_file, "Write the losses to this file; - is standard output");
  add_number<index_t>(app, "--length", o->length, 0, 1'000'000,
                      "Records are cut at this many tokens; 0: what the model holds");
  app.add_option("--fields", o->reading.fields,
                 "Names of the fields of a record: PROMPT,TARGET (default: known names)");
  add_choice(app, "--template", o->reading.form, chat_form_choices(),
             "How prompts are written; auto: as the model's chat template says, if it brings one");
  add_number<index_t>(app, "--skip-bad", o->reading.skip_bad, 0, 1'000'000'000,
                      "Go on after this many bad lines");
  add_number<index_t>(app, "--piece", o->reading.pieces, 1, 1'000'000, "Characters of a piece of plain text");
  add_adapter_options(app, o->adapter);
  add_tokenizer_option(app, o->tokenizer);
  add_weights_option(app, o->weights);
  add_machine_options(app, o->on);
  add_quiet_option(app, o->quiet);
  app.footer(
      "Example: pesc evaluate --model runs/first --data gsm8k_test.jsonl tinystories_sample_5.txt --json "
      "losses.json");
  return [o] { return evaluate_command(*o); };
}

}  // namespace pesc::tool
