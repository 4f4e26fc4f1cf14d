// SPDX-License-Identifier: Apache-2.0
#include "pesc/train/run.hpp"

#include <vector>

#include <doctest/doctest.h>

#include "support/model_bridge.hpp"

namespace {

using pesc::index_t;
using X = pesc::cpu_backend;
using model_type = pesc::llama<pesc::moe_layer<pesc::moe_dynamic<>, X>>;

constexpr pesc::llama_shape shape{.vocabulary = 11,
                                  .hidden = 16,
                                  .intermediate = 12,
                                  .layers = 2,
                                  .heads = 2,
                                  .kv_heads = 1,
                                  .head_dim = 8};
constexpr pesc::moe_shape experts{16, 12, 3, 2, 4, 2};

pesc::token_records counting_records() {
  pesc::token_records out;
  for (std::int32_t first = 0; first < 11; ++first) {
    std::vector<std::int32_t> ids{first};
    while (ids.size() < 9) ids.push_back((ids.back() + 1) % 11);
    out.add(ids, 1);
  }
  return out;
}

/// \brief A small model and all that its run needs.
struct small_run {
  pesc::model_weights<pesc::any_format> weights =
      support::random_model(shape, pesc::nf4<>::info(), 3, true, false);
  pesc::buffer<float> arena{model_type::parameter_count(shape, experts)};
  X ctx{1};
  model_type model{weights, experts, {}, arena.view()};
  pesc::token_records data = counting_records();
  pesc::batch_options batching{.layout = pesc::batch_layout::pack, .sequences = 2, .length = 8};
  pesc::batch_builder builder{{&data}, pesc::mixture({{data.size(), 1.0}}, 8), batching};
  pesc::trainer<model_type> trainer{ctx, model, arena.view(), {.seed = 7}, 16};
  std::vector<pesc::token_batch> batches{pesc::token_batch(batching)};
  std::vector<index_t> steps, saves;
  std::vector<double> rates, losses;
  index_t stop_at = -1;

  small_run() { model.initialize(1); }

  pesc::run_end go(const pesc::run_plan& plan) {
    return run_steps(
        trainer, builder, batches, plan, experts.experts,
        [&](const pesc::step_record& r) {
          steps.push_back(r.step);
          rates.push_back(r.rate);
          losses.push_back(r.loss);
          CHECK(r.experts == 3);
          CHECK(r.load.size() == 6);
        },
        [&] { saves.push_back(trainer.counters().step); },
        [&] { return trainer.counters().step == stop_at; });
  }
};

pesc::run_plan plan_of(index_t steps) {
  pesc::run_plan plan;
  plan.rate = {pesc::schedule_kind::linear, 0.01, 2, steps, 0.0, 0.5};
  plan.steps = steps;
  return plan;
}

}  // namespace

TEST_SUITE("train/run") {
  TEST_CASE("runs every step once at the rate of the schedule") {
    small_run run;
    const auto plan = plan_of(5);
    CHECK(run.go(plan) == pesc::run_end::finished);
    CHECK(run.steps == std::vector<index_t>{1, 2, 3, 4, 5});
    for (std::size_t i = 0; i < 5; ++i) CHECK(run.rates[i] == plan.rate(static_cast<index_t>(i)));
    CHECK(run.saves.empty());
    CHECK(run.go(plan) == pesc::run_end::finished);
    CHECK(run.steps.size() == 5);
  }

  TEST_CASE("saves at multiples, but not after the last step, which the caller saves") {
    small_run run;
    auto plan = plan_of(6);
    plan.save_every = 2;
    CHECK(run.go(plan) == pesc::run_end::finished);
    CHECK(run.saves == std::vector<index_t>{2, 4});
  }

  TEST_CASE("stops when it is asked to, and goes on to the same losses") {
    small_run whole, parts;
    const auto plan = plan_of(7);
    CHECK(whole.go(plan) == pesc::run_end::finished);
    auto limited = plan;
    limited.stop_after = 2;
    CHECK(parts.go(limited) == pesc::run_end::stopped);
    CHECK(parts.steps.size() == 2);
    parts.stop_at = 4;
    CHECK(parts.go(plan) == pesc::run_end::stopped);
    CHECK(parts.steps.size() == 4);
    parts.stop_at = -1;
    limited.stop_after = 100;
    CHECK(parts.go(limited) == pesc::run_end::finished);
    CHECK(parts.losses == whole.losses);
  }

  TEST_CASE("a plan without a step or with negative counts is refused") {
    small_run run;
    auto plan = plan_of(1);
    plan.steps = 0;
    CHECK_THROWS_AS(run.go(plan), pesc::shape_error);
    plan = plan_of(1);
    plan.save_every = -1;
    CHECK_THROWS_AS(run.go(plan), pesc::shape_error);
  }
}
