// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "pesc/io/json.hpp"
#include "pesc/model/run_state.hpp"
#include "pesc/train/run.hpp"
#include "pesc/train/run_log.hpp"
#include "pesc/train/token_records.hpp"
#include "pesc/train/trainer.hpp"

namespace pesc::tool {

/// \brief All that a tuning run is made of, besides the model.
struct tuning_plan {
  trainer_options trainer;
  batch_options batch;
  run_plan run;
  float adapter_dropout = 0.0f;
  float lora_dropout = 0.0f;
  bool recompute = false;
  std::vector<const token_records*> sets;
  std::vector<double> weights;         ///< share of each set
  const loaded_run* resume = nullptr;  ///< state to go on from; null: a new run

  std::string folder;     ///< where states are saved; empty: nowhere
  json settings;          ///< saved with every state, so that a run can be resumed from its folder alone
  std::string tokenizer;  ///< file that goes with the model
};

/// \brief What a run calls.
struct tuning_hooks {
  std::function<void(const step_record&)> on_step;
  std::function<bool()> stop;
};

/// \brief How a run ended.
struct tuning_result {
  run_end end = run_end::finished;
  trainer_counters counters;
  index_t trained_tokens = 0;  ///< in this call, padding excluded
  double seconds = 0.0;        ///< spent in steps
};

}  // namespace pesc::tool
