// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <optional>
#include <utility>

#include "pesc/model/generate.hpp"
#include "pesc/model/load_model.hpp"
#include "pesc/model/placed_model.hpp"
#include "pesc/model/run_state.hpp"
#include "pesc/train/run.hpp"
#include "pesc/train/run_json.hpp"
#include "tool/session.hpp"

namespace pesc::tool {

/// \brief A session over one type of model. Included by the files that instantiate it, one each.
template <class Layer>
class model_session final : public session {
 public:
  using X = typename Layer::backend;
  using model_type = llama<Layer>;

  model_session(std::unique_ptr<X> ctx, loaded_model<> loaded, std::uint64_t seed)
      : ctx_{std::move(ctx)}, loaded_{std::move(loaded)}, placed_(*ctx_, loaded_, seed) {}

  [[nodiscard]] const loaded_model<>& source() const override { return loaded_; }
  [[nodiscard]] index_t trainable_count() const override { return placed_.trainable_count(); }

  [[nodiscard]] evaluation evaluate(const token_records& records, function_ref<bool()> keep_going) override {
    evaluator<model_type> measure(*ctx_, *placed_, evaluation_places());
    return measure(records, keep_going);
  }

  index_t generate(std::span<const std::int32_t> prompt, index_t max_tokens, const sampling_options& options,
                   std::span<const std::int32_t> stop, function_ref<bool(std::int32_t)> emit) override {
    const index_t length = static_cast<index_t>(prompt.size()) + max_tokens;
    decoder<model_type> sequence(*ctx_, *placed_, std::min(length, loaded_.config.llama.max_positions));
    return pesc::generate(sequence, prompt, max_tokens, options, stop, emit);
  }

  index_t converse(std::span<const std::int32_t> ids, index_t places, index_t max_tokens,
                   const sampling_options& options, std::span<const std::int32_t> stop,
                   function_ref<bool(std::int32_t)> emit) override {
    if (!conversation_) conversation_.emplace(*ctx_, *placed_, places);
    return pesc::generate(*conversation_, conversation_->resume(ids), max_tokens, options, stop, emit);
  }

  [[nodiscard]] memory_estimate estimate(const tuning_plan& plan) override {
    apply(plan);
    return trainer_type::estimate(*ctx_, *placed_, plan.batch.sequences * plan.batch.length);
  }

  tuning_result tune(const tuning_plan& plan, const tuning_hooks& hooks) override {
    apply(plan);
    trainer_type training(*ctx_, *placed_, placed_.arena(), plan.trainer,
                          plan.batch.sequences * plan.batch.length);
    batch_builder data(plan.sets, mixture(sources_of(plan), plan.trainer.seed), plan.batch);
    if (plan.resume != nullptr) restore(*plan.resume, training, data);
    std::vector<token_batch> batches(static_cast<std::size_t>(plan.trainer.accumulation),
                                     token_batch(plan.batch));
    const index_t tokens_before = training.counters().tokens;
    bool fresh = plan.resume == nullptr;
    std::string tokenizer = plan.tokenizer;
    const auto save = [&](bool keep) {
      if (plan.folder.empty()) return;
      save_state(plan, tokenizer, training, data,
                 {.step = training.counters().step, .keep = keep, .fresh = std::exchange(fresh, false)});
      // The file may have been read from an old state, which goes with its folder as new ones come.
      if (!tokenizer.empty()) tokenizer = plan.folder + '/' + pesc::detail::file_name_of(tokenizer);
    };
    const auto begin = std::chrono::steady_clock::now();
    tuning_result out;
    out.end = run_steps(
        training, data, batches, plan.run, loaded_.ffn_shape().experts, hooks.on_step, [&] { save(true); },
        hooks.stop);
    out.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    out.counters = training.counters();
    out.trained_tokens = training.counters().tokens - tokens_before;
    save(false);
    return out;
  }

  void save(const std::string& folder, const std::string& tokenizer, const json& extra) override {
    placed_.to_host(*ctx_);
    save_model(folder, placed_.files(), {loaded_.config.llama, extra, tokenizer, &loaded_.forms},
               {.fresh = true});
  }

 private:
  [[nodiscard]] index_t evaluation_places() const {
    return std::clamp<index_t>(loaded_.config.llama.max_positions, 1, 2048);
  }

  using trainer_type = trainer<model_type>;

  void apply(const tuning_plan& plan) {
    moe_options options = loaded_.ffn_options();
    options.adapter_dropout = plan.adapter_dropout;
    options.lora_dropout = plan.lora_dropout;
    options.recompute_ffn = plan.recompute;
    placed_->set_options(options);
  }

  [[nodiscard]] static std::vector<mixture_source> sources_of(const tuning_plan& plan) {
    std::vector<mixture_source> out;
    for (std::size_t i = 0; i < plan.sets.size(); ++i) out.push_back({plan.sets[i]->size(), plan.weights[i]});
    return out;
  }

  void restore(const loaded_run& from, trainer_type& training, batch_builder& data) {
    const std::string file = from.place.folder + '/' + run_file;
    const json_fields run{from.run, file};
    const trainer_counters counters = parse_counters(run.get_object("counters"));
    buffer<float> m(placed_.trainable_count()), v(placed_.trainable_count());
    const index_t updates = load_optimizer(from.place.folder, placed_.files(), m.view(), v.view());
    upload(*ctx_, std::as_const(m).view(), training.first_moment());
    upload(*ctx_, std::as_const(v).view(), training.second_moment());
    if (updates != counters.updates)
      pesc::detail::raise<format_error>(pesc::detail::concat(file, ": the run has ", counters.updates,
                                                             " updates, the optimiser's file ", updates));
    training.restore(counters);
    data.restore(parse_batch_state(run.get_object("order")));
  }

  void save_state(const tuning_plan& plan, const std::string& tokenizer, trainer_type& training,
                  const batch_builder& data, const checkpoint_options& options) {
    json run = plan.settings;
    run.set("counters", to_json(training.counters())).set("order", to_json(data.state()));
    buffer<float> m(placed_.trainable_count()), v(placed_.trainable_count());
    download(*ctx_, as_const(training.first_moment()), m.view());
    download(*ctx_, as_const(training.second_moment()), v.view());
    placed_.to_host(*ctx_);
    save_run(plan.folder, placed_.files(), {loaded_.config.llama, loaded_.extra, tokenizer, &loaded_.forms},
             {m.view(), v.view(), training.counters().updates}, run, options);
  }

  std::unique_ptr<X> ctx_;
  loaded_model<> loaded_;
  placed_model<Layer> placed_;
  std::optional<decoder<model_type>> conversation_;
};

template <class Layer>
std::unique_ptr<session> make_model_session(std::unique_ptr<typename Layer::backend> ctx,
                                            loaded_model<> model, std::uint64_t seed) {
  return std::make_unique<model_session<Layer>>(std::move(ctx), std::move(model), seed);
}

}  // namespace pesc::tool
