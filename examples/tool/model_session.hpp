// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <utility>

#include "pesc/model/generate.hpp"
#include "pesc/model/load_model.hpp"
#include "tool/session.hpp"

namespace pesc::tool {

/// \brief A session over one type of model. Included by the files that instantiate it, one each.
template <class Layer>
class model_session final : public session {
 public:
  using model_type = llama<Layer>;

  model_session(cpu_backend& ctx, loaded_model<> loaded, std::uint64_t seed)
      : ctx_{&ctx},
        loaded_{std::move(loaded)},
        arena_(model_type::parameter_count(loaded_.weights.shape, loaded_.ffn_shape())),
        model_{loaded_.weights, loaded_.ffn_shape(), loaded_.ffn_options(), arena_.view()} {
    model_.initialize(seed);
    static_cast<void>(load_trainables(model_, loaded_));
  }

  [[nodiscard]] const loaded_model<>& source() const override { return loaded_; }
  [[nodiscard]] index_t trainable_count() const override { return arena_.size(); }

  [[nodiscard]] evaluation evaluate(const token_records& records, function_ref<bool()> keep_going) override {
    evaluator<model_type> measure(*ctx_, model_, evaluation_places());
    return measure(records, keep_going);
  }

  index_t generate(std::span<const std::int32_t> prompt, index_t max_tokens, const sampling_options& options,
                   std::span<const std::int32_t> stop, function_ref<bool(std::int32_t)> emit) override {
    const index_t length = static_cast<index_t>(prompt.size()) + max_tokens;
    decoder<model_type> sequence(*ctx_, model_, std::min(length, loaded_.config.llama.max_positions));
    return pesc::generate(sequence, prompt, max_tokens, options, stop, emit);
  }

  [[nodiscard]] memory_estimate estimate(const tuning_plan&) override { return {}; }
  tuning_result tune(const tuning_plan&, const tuning_hooks&) override { return {}; }
  void save(const std::string&, bool) const override {}

 private:
  [[nodiscard]] index_t evaluation_places() const {
    return std::clamp<index_t>(loaded_.config.llama.max_positions, 1, 2048);
  }

  cpu_backend* ctx_;
  loaded_model<> loaded_;
  buffer<float> arena_;
  model_type model_;
};

}  // namespace pesc::tool
