// SPDX-License-Identifier: Apache-2.0
#include "pesc/train/memory.hpp"
#include "tool/common_options.hpp"
#include "tool/weights.hpp"

// craft: a dense model becomes a mixture of experts (or its dense twin with low-rank updates alone).

namespace pesc::tool {
namespace {

struct craft_options {
  std::string model, out, tokenizer;
  std::string weights = "nf4-dq";
  index_t block = 64;
  index_t experts = 8, top_k = 2, rank = 16, lora = 8;
  double alpha = 16.0, adapter_scale = 1.0;
  std::uint64_t seed = 1;
  adapter_choice adapter;
  machine on;
  bool quiet = false;
};

void check_sizes(const craft_options& o, const llama_config& config) {
  if (o.experts > 0 && o.top_k > o.experts)
    refuse_usage("--top-k ", o.top_k, ": there are only ", o.experts, " experts");
  if (o.experts > 0 && o.rank > config.hidden)
    refuse_usage("--rank ", o.rank, ": must be at most the hidden size of the model, ", config.hidden);
  if (o.lora > config.hidden)
    refuse_usage("--lora ", o.lora, ": must be at most the hidden size of the model, ", config.hidden);
  if (o.experts == 0 && o.lora == 0) refuse_usage("--experts 0 --lora 0: nothing would be left to train");
}

int craft_command(const craft_options& o) {
  if (!o.adapter.folder.empty() && !o.adapter.merge)
    refuse_usage("--adapter without --merge: a crafted model gets low-rank updates of its own (--lora)");
  loaded_model<> loaded = open_model(o.model, o.on, o.quiet, {format_named(o.weights, o.block)}, o.adapter);
  if (loaded.sparse() || loaded.lora)
    pesc::detail::raise<format_error>(
        o.model + ": this model is crafted already. Tune it: pesc tune --model " + o.model);
  check_sizes(o, loaded.config.llama);
  const std::string tokenizer = o.tokenizer.empty() && loaded.tokenizer.empty()
                                    ? std::string{}
                                    : open_tokenizer(o.tokenizer, loaded).file;
  if (o.experts > 0) loaded.config.pesc = pesc_config{o.experts, o.top_k, o.rank, o.adapter_scale, true};
  if (o.lora > 0) loaded.lora = lora_config{o.lora, o.alpha, 0.0, {}};
  const auto model = make_session(o.on, std::move(loaded), o.seed);
  json about = json::object();
  about.set("crafted_from", o.model);
  model->save(o.out, tokenizer, about);
  std::printf(
      "%s: %lld experts, top-%lld, rank %lld, LoRA %lld, weights %s (%s), %lld trainable numbers\n",
      o.out.c_str(), static_cast<long long>(o.experts), static_cast<long long>(o.experts > 0 ? o.top_k : 0),
      static_cast<long long>(o.experts > 0 ? o.rank : 0), static_cast<long long>(o.lora), o.weights.c_str(),
      bytes_text(model->source().weights.bytes()).c_str(), static_cast<long long>(model->trainable_count()));
  return done;
}

}  // namespace

command add_craft(CLI::App& program) {
  auto o = std::make_shared<craft_options>();
  CLI::App& app =
      *program.add_subcommand("craft", "Turn a dense model into a mixture of experts that can be tuned");
  app.add_option("--model", o->model, "Dense model: folder, GGUF or llama2.c file")->required();
  app.add_option("--out", o->out, "Folder for the crafted model")->required();
  add_number<index_t>(app, "--experts", o->experts, 0, 65536,
                      "Experts of a layer; 0: none, low-rank updates only (QLoRA)");
  add_number<index_t>(app, "--top-k", o->top_k, 1, max_top_k,
                      "Experts that a token goes to, at most --experts");
  add_number<index_t>(app, "--rank", o->rank, 1, 65536,
                      "Width of an adapter, at most the hidden size of the model");
  add_number<index_t>(app, "--lora", o->lora, 0, 65536,
                      "Rank of the low-rank updates of all projections; 0: none");
  add_number(app, "--alpha", o->alpha, 1e-6, 1e6, "Low-rank updates are scaled by alpha / rank");
  add_number(app, "--adapter-scale", o->adapter_scale, -1e6, 1e6, "Factor of an adapter's output");
  add_choice(app, "--weights", o->weights, {"nf4-dq", "nf4", "fp4", "bf16", "float"},
             "How frozen projections are stored");
  add_number<index_t>(app, "--block", o->block, 32, 4096, "Weights that share a scale, a power of two");
  add_seed_option(app, o->seed);
  add_adapter_options(app, o->adapter);
  add_tokenizer_option(app, o->tokenizer);
  add_machine_options(app, o->on);
  add_quiet_option(app, o->quiet);
  app.footer("Example: pesc craft --model stories260K.bin --out crafted --experts 8 --top-k 2");
  return [o] { return craft_command(*o); };
}

}  // namespace pesc::tool
