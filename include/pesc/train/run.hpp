// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "pesc/nn/schedule.hpp"
#include "pesc/train/run_log.hpp"
#include "pesc/train/trainer.hpp"

namespace pesc {

/// \brief How far a run goes and how often it is saved on the way.
struct run_plan {
  schedule rate;           ///< learning rate; counts steps from 0
  index_t steps = 1;       ///< of the whole run, those before a resume included
  index_t stop_after = 0;  ///< steps of this call, 0: no limit
  index_t save_every = 0;  ///< 0: only at the end

  /// \throws shape_error for counts that are negative or no step at all
  void check() const {
    rate.check();
    PESC_EXPECTS(steps >= 1, "run of ", steps, " steps, expected 1 or more");
    PESC_EXPECTS(stop_after >= 0 && save_every >= 0, "stop after ", stop_after, " and save every ",
                 save_every, " steps, expected 0 or more");
  }
};

/// \brief Why a run came back.
enum class run_end { finished, stopped };

/// \brief The log's view of a step.
template <class Model>
[[nodiscard]] step_record to_record(const trainer<Model>& t, const step_result& result, double rate,
                                    index_t experts) {
  return {.step = t.counters().step,
          .tokens = t.counters().tokens,
          .targets = result.targets,
          .loss = result.loss,
          .rate = rate,
          .grad_norm = result.grad_norm,
          .balance = result.balance,
          .z = result.z,
          .skipped = result.skipped,
          .experts = experts,
          .load = t.load()};
}

/// \brief Runs the steps that are left of a plan.
///
/// \param batches  the micro-batches of a step, made with the builder's options
/// \param experts  of a layer, for the log; 0 for a dense model
/// \param on_step  called as `on_step(step_record)` after each step
/// \param save  called as `save()` every `save_every` steps, not after the last
/// \param stop  asked before each step; true ends the run with everything of the last step done
template <class Model, class OnStep, class Save, class Stop>
run_end run_steps(trainer<Model>& t, batch_builder& data, std::span<token_batch> batches,
                  const run_plan& plan, index_t experts, OnStep&& on_step, Save&& save, Stop&& stop) {
  plan.check();
  const index_t last =
      plan.stop_after > 0 ? std::min(plan.steps, t.counters().step + plan.stop_after) : plan.steps;
  while (t.counters().step < last) {
    if (stop()) return run_end::stopped;
    for (token_batch& batch : batches) data.fill(batch);
    const double rate = plan.rate(t.counters().step);
    const step_result result = t.step(batches, rate);
    on_step(to_record(t, result, rate, experts));
    const index_t step = t.counters().step;
    if (plan.save_every > 0 && step % plan.save_every == 0 && step < last) save();
  }
  return last < plan.steps ? run_end::stopped : run_end::finished;
}

}  // namespace pesc
