// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>
#include <vector>

#include "pesc/io/json.hpp"
#include "pesc/train/mixture.hpp"
#include "tool/data_sets.hpp"
#include "tool/tuning.hpp"

namespace pesc::tool {

/// \brief The options of a run that decide what it computes; saved with it.
struct run_options {
  index_t steps = 300;
  index_t micro_batch = 16;
  index_t length = 224;
  std::string layout = "pack";
  index_t accumulate = 1;
  double lr = 1e-3;
  std::string schedule = "cosine";
  index_t warmup = 20;
  double final_lr = 0.1;
  double weight_decay = 0.0;
  double clip = 1.0;
  double aux = 0.01;
  double z = 0.0;
  double adapter_dropout = 0.0;
  double lora_dropout = 0.0;
  bool recompute = false;
  std::uint64_t seed = 1;
  std::string compute = "float";
  std::string isa = "auto";
  std::string device = "cpu";
  data_options reading;
  index_t save_every = 100;
};

/// \brief The one table of these options: name, value, range and help. What visits it makes options, JSON, comparisons.
///
/// `visit.number(name, value, least, most, text)`, `visit.choice(name, value, words, text)`, `visit.flag(name, value, text)`,
/// `visit.text(name, value, text)`, `visit.seed(name, value, text)`.
template <class Options, class Visitor>
void visit_run_options(Options& o, Visitor&& visit) {
  using words = std::vector<std::string>;
  visit.number("steps", o.steps, index_t{1}, index_t{1'000'000'000}, "Optimiser steps of the whole run");
  visit.number("micro-batch", o.micro_batch, index_t{1}, index_t{65536}, "Sequences of a micro-batch");
  visit.number("length", o.length, index_t{2}, index_t{1'000'000},
               "Tokens of a sequence; longer records are cut or split");
  visit.choice("layout", o.layout, words{"pack", "pad"},
               "Records one behind the other, or one per sequence and padded");
  visit.number("accumulate", o.accumulate, index_t{1}, index_t{65536}, "Micro-batches of a step");
  visit.number("lr", o.lr, 1e-12, 10.0, "Learning rate");
  visit.choice("schedule", o.schedule, words{"constant", "cosine", "linear"},
               "How the learning rate goes on after the warm-up");
  visit.number("warmup", o.warmup, index_t{0}, index_t{1'000'000'000},
               "Steps over which the learning rate rises");
  visit.number("final-lr", o.final_lr, 0.0, 1.0, "Share of the learning rate that is left at the end");
  visit.number("weight-decay", o.weight_decay, 0.0, 10.0, "Weight decay of AdamW");
  visit.number("clip", o.clip, 0.0, 1e9, "Largest norm of the gradient; 0: no limit");
  visit.number("aux", o.aux, 0.0, 1e3, "Factor of the balance loss");
  visit.number("z", o.z, 0.0, 1e3, "Factor of the router's z-loss");
  visit.number("adapter-dropout", o.adapter_dropout, 0.0, 0.99, "Dropout on the adapters' input");
  visit.number("lora-dropout", o.lora_dropout, 0.0, 0.99, "Dropout on the input of low-rank updates");
  visit.flag("recompute", o.recompute, "Keep less for the backward pass and compute it again");
  visit.seed("seed", o.seed, "Seed of data order and dropout");
  visit.choice("compute", o.compute, words{"float", "bf16"}, "How products with frozen weights are formed");
  visit.choice("isa", o.isa, words{"auto", "scalar", "avx2", "avx512", "avx512_bf16"},
               "Instruction set; auto: the best here");
  visit.choice("device", o.device, words{"cpu", "cuda"}, "Where the model computes");
  visit.text("fields", o.reading.fields,
             "Names of the fields of a record: PROMPT,TARGET (default: known names)");
  visit.choice("template", o.reading.form, chat_form_choices(),
               "How prompts are written; auto: as the model's chat template says, if it brings one");
  visit.number("skip-bad", o.reading.skip_bad, index_t{0}, index_t{1'000'000'000},
               "Go on after this many bad lines");
  visit.number("piece", o.reading.pieces, index_t{1}, index_t{1'000'000},
               "Characters of a piece of plain text");
  visit.number(
      "save-every", o.save_every, index_t{0}, index_t{1'000'000'000},
      "Steps between saved states, of which the last two stay under DIR/checkpoints; 0: only at the end");
}

/// \brief Adds all of them to a command; tells later which ones were given.
[[nodiscard]] std::map<std::string, CLI::Option*> add_run_options(CLI::App& app, run_options& o);

[[nodiscard]] json to_json(const run_options& o);

/// \param file  name for messages
/// \throws format_error
[[nodiscard]] run_options parse_run_options(const json_fields& f);

/// \brief Refuses an option that was given and says something else than the saved run.
/// \throws usage_error naming both values
void refuse_contradictions(const run_options& given, const std::map<std::string, CLI::Option*>& options,
                           const run_options& saved, const std::string& folder);

/// \brief Batch shape, optimiser and schedule that the options ask for.
[[nodiscard]] tuning_plan to_plan(const run_options& o, std::int32_t padding_id);

}  // namespace pesc::tool
