// SPDX-License-Identifier: Apache-2.0
#include "tool/common_options.hpp"

#include "pesc/text/load_tokenizer.hpp"

namespace pesc::tool {

void add_thread_options(CLI::App& app, machine& m) {
  add_number(app, "--threads", m.threads, 0, 1024,
             "Threads; 0: one per hardware thread. Results do not depend on it");
  add_choice(app, "--isa", m.isa, {"auto", "scalar", "avx2", "avx512", "avx512_bf16"},
             "Instruction set; auto: the best of this processor");
}

void add_machine_options(CLI::App& app, machine& m) {
  add_thread_options(app, m);
  add_choice(app, "--compute", m.compute, {"float", "bf16"}, "How products with frozen weights are formed");
  add_choice(app, "--device", m.device, {"cpu", "cuda"}, "Where the model computes");
  app.add_flag("--mmap", m.map, "Map model files instead of reading them");
}

void add_adapter_options(CLI::App& app, adapter_choice& adapter) {
  app.add_option("--adapter", adapter.folder, "Folder of a PEFT adapter that is read with the model");
  app.add_flag("--merge", adapter.merge, "Add low-rank updates to the weights instead of keeping them apart");
  app.add_flag("--requantize", adapter.requantize,
               "With --merge: quantise 4-bit weights again, which loses precision");
}

void add_tokenizer_option(CLI::App& app, std::string& file) {
  app.add_option("--tokenizer", file,
                 "Tokenizer file, where the model does not bring one: tokenizer.json, tokenizer.model, "
                 "vocab.json with merges.txt, "
                 "tok*.bin (default: the one beside the model)");
}

CLI::Option* add_seed(CLI::App& app, const std::string& name, std::uint64_t& seed, const std::string& text) {
  const auto check = [](std::string& given) -> std::string {
    std::uint64_t number = 0;
    if (!given.starts_with('-') && CLI::detail::lexical_cast(given, number)) return {};
    return pesc::detail::concat("found ", in_quotes(given), ", expected a whole number from 0 to 2^64 - 1");
  };
  return app.add_option(name, seed, text)
      ->capture_default_str()
      ->check(CLI::Validator(check, "0 to 2^64 - 1"));
}

void add_seed_option(CLI::App& app, std::uint64_t& seed) {
  add_seed(app, "--seed", seed, "Seed of all random numbers");
}

void add_sampling_options(CLI::App& app, sampling_options& sampling) {
  add_number(app, "--temperature", sampling.temperature, 0.0, 100.0,
             "Randomness; 0: always the likeliest token");
  add_number<index_t>(app, "--top-k", sampling.top_k, 0, 1'000'000,
                      "Draw from this many likeliest tokens; 0: all");
  add_number(app, "--top-p", sampling.top_p, 1e-6, 1.0,
             "Draw from the likeliest tokens that have this probability");
  add_seed_option(app, sampling.seed);
}

void add_quiet_option(CLI::App& app, bool& quiet) {
  app.add_flag("--quiet", quiet, "Print results and errors only");
}

CLI::Option* add_choice(CLI::App& app, const std::string& name, std::string& value,
                        const std::vector<std::string>& words, const std::string& text) {
  std::string all;
  for (const std::string& word : words) all += (all.empty() ? "" : "|") + word;
  const auto check = [words, all](std::string& given) -> std::string {
    if (std::find(words.begin(), words.end(), given) != words.end()) return {};
    return pesc::detail::concat("found ", in_quotes(given), ", expected one of ", all);
  };
  return app.add_option(name, value, text)->capture_default_str()->check(CLI::Validator(check, all));
}

opened_tokenizer open_tokenizer(const std::string& named, const loaded_model<>& model) {
  const std::string file = named.empty() ? model.tokenizer : named;
  if (file.empty())
    pesc::detail::raise<format_error>(
        model.name + ": there is no tokenizer beside this model. Name one: --tokenizer FILE");
  return {load_tokenizer(file, model.config.llama.vocab), file};
}

}  // namespace pesc::tool
