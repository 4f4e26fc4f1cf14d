// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "pesc/core/mirrored_buffer.hpp"
#include "pesc/model/llama.hpp"
#include "pesc/nn/adamw.hpp"
#include "pesc/train/batch.hpp"
#include "pesc/train/expert_load.hpp"

namespace pesc {

/// \brief Numbers of a training run that do not change from step to step.
struct trainer_options {
  adamw_options adamw{};
  double max_grad_norm = 1.0;  ///< 0: no clipping
  balance_options balance{};
  index_t accumulation = 1;  ///< micro-batches per step
  std::uint64_t seed = 0;    ///< of dropout and router noise
  int max_bad_steps = 5;     ///< steps in a row with numbers that are not finite before the run gives up
};

/// \brief What a step computed.
struct step_result {
  double loss = 0.0;       ///< nats per target token
  double balance = 0.0;    ///< balance loss without its coefficient, mean over micro-batches
  double z = 0.0;          ///< z-loss without its coefficient, mean over micro-batches
  double grad_norm = 0.0;  ///< before clipping
  index_t tokens = 0;      ///< without padding
  index_t targets = 0;
  bool skipped = false;  ///< a number was not finite: no update was made
};

/// \brief Counters of a run; with the arenas and the data order they say everything that a resumed run needs.
struct trainer_counters {
  index_t step = 0;        ///< steps done, skipped ones included
  index_t updates = 0;     ///< optimiser updates done
  index_t micro_step = 0;  ///< micro-batches done; counts random streams
  index_t tokens = 0;      ///< trained so far, without padding
  int bad_steps = 0;       ///< skipped in a row
};

/// \brief Bytes that training needs, by purpose.
struct memory_estimate {
  index_t weights = 0, parameters = 0, gradients = 0, optimizer = 0, activations = 0, scratch = 0;

  [[nodiscard]] index_t total() const {
    return weights + parameters + gradients + optimizer + activations + scratch;
  }
};

/// \brief Trains the adapters, routers and low-rank updates of a model; allocates when made, never in a step.
///
/// The gradient of a step is the mean over the target tokens of all its micro-batches; the balance and z losses are
/// taken per micro-batch and averaged.
template <class Model>
class trainer {
 public:
  using X = typename Model::X;
  using space = typename X::memory_space;
  using resource = resource_of<X>;

  /// \param parameters  the arena the model was made over
  /// \param places  rows of a micro-batch, padding included
  trainer(X& ctx, const Model& model, vector_view<float, space> parameters, const trainer_options& options,
          index_t places)
      : ctx_{&ctx},
        model_{&model},
        options_{options},
        parameters_{parameters},
        gradient_(parameters.size),
        first_moment_(parameters.size),
        second_moment_(parameters.size),
        views_{model.views_over(gradient_.view())},
        balance_(model.ffn_shape().experts, std::max<index_t>(1, model.ffn_shape().top_k)),
        losses_(places),
        norm_(1),
        load_(detail::load_size(model)),
        batch_(places),
        places_{places} {
    PESC_EXPECTS(options.accumulation >= 1, "gradient accumulation over ", options.accumulation,
                 " micro-batches: at least 1");
    spans_.resize(static_cast<std::size_t>(places));
    const sizes s = measure(ctx, model, places);
    kept_ = buffer<std::byte, resource>(s.kept);
    scratch_ = buffer<std::byte, resource>(s.scratch);
    // The state's list of layers is made here, so that no step allocates.
    workspace<space> counting;
    model.carve_state(counting, places, true, state_);
  }

  /// \brief What a trainer of these sizes would allocate, and what the model holds.
  [[nodiscard]] static memory_estimate estimate(X& ctx, const Model& model, index_t places) {
    const index_t arena = 4 * Model::parameter_count(model.shape(), model.ffn_shape());
    const sizes s = measure(ctx, model, places);
    return {model.weights().bytes(), arena, arena, 2 * arena, s.kept, s.scratch};
  }

  /// \brief One optimiser step over micro-batches that the caller filled.
  ///
  /// \param rate  learning rate of this step
  /// \throws numeric_error after `max_bad_steps` steps in a row with numbers that are not finite, naming the first tensor
  step_result step(std::span<token_batch> batches, double rate) {
    PESC_EXPECTS(static_cast<index_t>(batches.size()) == options_.accumulation, "step of ", batches.size(),
                 " micro-batches, expected ", options_.accumulation);
    step_result out;
    for (const token_batch& batch : batches) {
      out.targets += batch.target_tokens;
      out.tokens += batch.valid_tokens;
    }
    fill(*ctx_, gradient_.view(), 0.0f);
    load_.clear(*ctx_);
    double sum = 0.0;
    for (token_batch& batch : batches) sum += micro_step(batch, out);
    out.loss = out.targets > 0 ? sum / static_cast<double>(out.targets) : 0.0;
    const double squared = gradient_norm();
    load_.read(*ctx_);
    out.grad_norm = std::sqrt(squared);
    ++counters_.step;
    counters_.tokens += out.tokens;
    out.skipped = !std::isfinite(out.loss) || !std::isfinite(squared);
    if (out.skipped) {
      if (++counters_.bad_steps >= options_.max_bad_steps) give_up();
      return out;
    }
    counters_.bad_steps = 0;
    ++counters_.updates;
    const double clip = clip_factor(out.grad_norm, options_.max_grad_norm);
    adamw_step(*ctx_, parameters_, as_const(gradient_.view()), first_moment_.view(), second_moment_.view(),
               adamw_step_coefficients(options_.adamw, rate, counters_.updates, clip));
    return out;
  }

  /// \brief Slots of the last step per layer and expert, layer by layer; empty for a dense model.
  [[nodiscard]] std::span<const std::int32_t> load() const {
    const vector_view<const std::int32_t> counts = load_.last_read();
    return {counts.data, static_cast<std::size_t>(counts.size)};
  }

  [[nodiscard]] const trainer_counters& counters() const { return counters_; }
  [[nodiscard]] vector_view<float, space> first_moment() { return first_moment_.view(); }
  [[nodiscard]] vector_view<float, space> second_moment() { return second_moment_.view(); }
  [[nodiscard]] vector_view<const float, space> gradient() const { return gradient_.view(); }

  /// \brief Goes on where another trainer stood; the moments are set through their views.
  void restore(const trainer_counters& counters) { counters_ = counters; }

 private:
  struct sizes {
    index_t kept = 0, scratch = 0;
  };

  [[nodiscard]] static sizes measure(X& ctx, const Model& model, index_t places) {
    workspace<space> kept;
    auto state = model.carve_state(kept, places, true);
    auto dhidden = kept.template take<float>(places, model.shape().hidden);
    workspace<space> scratch;
    const auto input = Model::input::counting(places);
    moe_run run;
    run.training = true;
    balance_pool<resource> pool(model.ffn_shape().experts, std::max<index_t>(1, model.ffn_shape().top_k));
    model.forward(ctx, input, state, run, nullptr, &pool, scratch);
    model.loss(ctx, input, state, 1.0f, {nullptr, places}, dhidden, scratch);
    model.backward(ctx, input, state, as_const(dhidden), model.parameters(), {}, run, {}, scratch);
    squared_norm(
        ctx,
        vector_view<const float, space>{nullptr, Model::parameter_count(model.shape(), model.ffn_shape())},
        {nullptr, 1}, scratch);
    return {kept.peak(), scratch.peak()};
  }

  /// \brief Forward, loss and backward of one micro-batch; returns the sum of its losses.
  double micro_step(token_batch& batch, step_result& out) {
    PESC_EXPECTS(batch.tokens() == places_, "micro-batch of ", batch.tokens(), " places, expected ", places_);
    for (index_t i = 0; i < batch.document_count; ++i) {
      const index_t begin = batch.documents[static_cast<std::size_t>(i)];
      spans_[static_cast<std::size_t>(i)] = {begin, batch.documents[static_cast<std::size_t>(i + 1)], begin,
                                             0};
    }
    const auto input = batch_.set(*ctx_, {{batch.ids.data(), places_},
                                          {batch.positions.data(), places_},
                                          {spans_.data(), batch.document_count},
                                          {batch.targets.data(), places_},
                                          {batch.valid.data(), places_}});
    const moe_run run{
        .training = true, .seed = options_.seed, .step = static_cast<std::uint32_t>(counters_.micro_step++)};
    workspace<space> kept(kept_.data(), kept_.size());
    workspace<space> scratch(scratch_.data(), scratch_.size());
    model_->carve_state(kept, places_, true, state_);
    auto dhidden = kept.template take<float>(places_, model_->shape().hidden);
    balance_.clear(*ctx_);
    model_->forward(*ctx_, input, state_, run, nullptr, &balance_, scratch,
                    [&, this](index_t layer, const auto& s) {
                      detail::count_load(*ctx_, *model_, layer, s, input.valid, load_.view());
                    });
    const float scale = out.targets > 0 ? static_cast<float>(1.0 / static_cast<double>(out.targets)) : 0.0f;
    model_->loss(*ctx_, input, state_, scale, losses_.view(), dhidden, scratch);
    const double share = 1.0 / static_cast<double>(options_.accumulation);
    balance_gradient<space> balance = balance_.gradient(*ctx_, options_.balance, input.valid);
    balance.scale *= static_cast<float>(share);
    balance.z_scale *= static_cast<float>(share);
    balance.router_scale *= static_cast<float>(share);
    model_->backward(*ctx_, input, state_, as_const(dhidden), views_, balance, run, {}, scratch);
    const balance_values auxiliary = balance_.values(*ctx_, options_.balance);
    out.balance += share * auxiliary.balance;
    out.z += share * auxiliary.z;
    double sum = 0.0;
    for (const float loss : losses_.read(*ctx_)) sum += static_cast<double>(loss);
    return sum;
  }

  /// \brief Squared norm of the whole gradient; waits for the backend.
  [[nodiscard]] double gradient_norm() {
    workspace<space> scratch(scratch_.data(), scratch_.size());
    squared_norm(*ctx_, as_const(gradient_.view()), norm_.view(), scratch);
    return norm_.read(*ctx_)[0];
  }

  /// \brief Ends the run and names the first gradient that is not finite.
  [[noreturn]] void give_up() const {
    std::string where = "the loss";
    bool found = false;
    buffer<float> host(gradient_.size());
    download(*ctx_, gradient_.view(), host.view());
    for (std::size_t l = 0; l < views_.size(); ++l) {
      const auto look = [&, this](const std::string& name, batch_view<float, space> tensor) {
        const float* values = host.data() + (tensor.data - gradient_.data());
        for (index_t i = 0; i < tensor.size() && !found; ++i)
          if (!std::isfinite(values[i])) {
            found = true;
            where = detail::concat("the gradient of layer ", l, " ", name, " at element ", i);
          }
      };
      views_[l].attention.for_each(look);
      views_[l].ffn.for_each(look);
    }
    detail::raise<numeric_error>(
        detail::concat("step ", counters_.step, ": ", where, " is not finite, ", counters_.bad_steps,
                       " steps in a row. Lower the learning rate or go back to a checkpoint."));
  }

  X* ctx_;
  const Model* model_;
  trainer_options options_;
  vector_view<float, space> parameters_;
  buffer<float, resource> gradient_, first_moment_, second_moment_;
  typename Model::trainables views_;
  balance_pool<resource> balance_;
  mirrored_buffer<float, resource> losses_;
  mirrored_buffer<double, resource> norm_;
  mirrored_buffer<std::int32_t, resource> load_;
  batch_memory<resource> batch_;
  std::vector<attention_span> spans_;
  index_t places_;
  typename Model::state state_;
  buffer<std::byte, resource> kept_, scratch_;
  trainer_counters counters_;
};

}  // namespace pesc
