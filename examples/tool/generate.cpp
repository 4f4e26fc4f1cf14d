// SPDX-License-Identifier: Apache-2.0
#include "tool/common_options.hpp"
#include "tool/weights.hpp"
#include "tool/writing.hpp"

namespace pesc::tool {
namespace {

struct generate_options {
  std::string model, prompt, tokenizer;
  std::string weights = "keep";
  adapter_choice adapter;
  machine on;
  sampling_options sampling{.seed = 1};
  index_t max_tokens = 64;
  bool quiet = false;
};

int generate_command(const generate_options& o) {
  loaded_model<> loaded = open_model(o.model, o.on, o.quiet, {format_named(o.weights, 64)}, o.adapter);
  const opened_tokenizer tokens = open_tokenizer(o.tokenizer, loaded);
  const auto model = make_session(o.on, std::move(loaded), 0);
  std::fputs(o.prompt.c_str(), stdout);
  const writing_result written = write_text(*model, tokens.text, o.prompt, o.max_tokens, o.sampling,
                                            [](std::string_view text) { print_now(text); });
  std::fputc('\n', stdout);
  if (written.full && !o.quiet)
    std::fprintf(stderr, "pesc: stopped: the model holds %lld tokens at most\n",
                 static_cast<long long>(model->source().config.llama.max_positions));
  return done;
}

}  // namespace

command add_generate(CLI::App& program) {
  auto o = std::make_shared<generate_options>();
  CLI::App& app = *program.add_subcommand("generate", "Let a model continue a text");
  app.add_option("--model", o->model, "Model folder, GGUF or llama2.c file")->required();
  app.add_option("--prompt", o->prompt, "Text to go on from; empty: a new text");
  add_number<index_t>(app, "--max-tokens", o->max_tokens, 1, 1'000'000, "Most tokens to write");
  add_sampling_options(app, o->sampling);
  add_adapter_options(app, o->adapter);
  add_tokenizer_option(app, o->tokenizer);
  add_weights_option(app, o->weights);
  add_machine_options(app, o->on);
  add_quiet_option(app, o->quiet);
  app.footer(
      "Example: pesc generate --model stories260K.bin --prompt \"Once upon a time\" --temperature 0.8 --seed "
      "7");
  return [o] { return generate_command(*o); };
}

}  // namespace pesc::tool
