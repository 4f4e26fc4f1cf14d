// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <vector>

#include "pesc/core/mirrored_buffer.hpp"
#include "pesc/model/llama.hpp"
#include "pesc/train/expert_load.hpp"
#include "pesc/train/token_records.hpp"

namespace pesc {

/// \brief Loss of a model on a data set.
struct evaluation {
  double loss = 0.0;   ///< nats per target token
  index_t tokens = 0;  ///< target tokens
  index_t records = 0;
  std::vector<index_t> load;  ///< slots per layer and expert, layer by layer; empty for a dense model
};

/// \brief Measures losses; several records go through the model at one time, none sees another.
template <class Model>
class evaluator {
 public:
  using X = typename Model::X;
  using space = typename X::memory_space;
  using resource = resource_of<X>;

  /// \param places  most tokens at one time; longer records are cut
  evaluator(X& ctx, const Model& model, index_t places = 2048)
      : ctx_{&ctx},
        model_{&model},
        places_{places},
        batch_(places),
        losses_(places),
        load_(detail::load_size(model)) {
    index_t kept = 0;
    index_t scratch = 0;
    // Smaller calls may need more scratch than the largest, so every size on the way is measured.
    for (index_t tokens = 1; tokens <= places;
         tokens = tokens < 64 ? tokens + 1 : std::min(tokens * 2, places)) {
      workspace<space> counting_kept;
      workspace<space> counting;
      model.carve_state(counting_kept, tokens, false, state_);
      const auto input = Model::input::counting(tokens);
      model.forward(ctx, input, state_, {}, nullptr, nullptr, counting);
      model.loss(ctx, input, state_, 1.0f, {nullptr, tokens}, {}, counting);
      kept = std::max(kept, counting_kept.peak());
      scratch = std::max(scratch, counting.peak());
      if (tokens == places) break;
    }
    kept_ = buffer<std::byte, resource>(kept);
    scratch_ = buffer<std::byte, resource>(scratch);
  }

  /// \brief Loss over all target tokens of `records`.
  /// \param keep_going  asked between batches; false ends the measurement early
  template <class KeepGoing>
  [[nodiscard]] evaluation operator()(const token_records& records, KeepGoing&& keep_going) {
    evaluation out;
    out.load.assign(static_cast<std::size_t>(load_.size()), 0);
    double sum = 0.0;
    for (index_t next = 0; next < records.size() && keep_going();) {
      clear();
      while (next < records.size() && add(records[next])) {
        ++next;
        ++out.records;
      }
      sum += run(out);
    }
    out.loss = out.tokens > 0 ? sum / static_cast<double>(out.tokens) : 0.0;
    return out;
  }

  [[nodiscard]] evaluation operator()(const token_records& records) {
    return (*this)(records, [] { return true; });
  }

 private:
  void clear() {
    ids_.clear();
    positions_.clear();
    targets_.clear();
    spans_.clear();
  }

  /// \brief Adds a record where it fits; the first always does, cut to the memory there is.
  bool add(const token_record& record) {
    const index_t begin = static_cast<index_t>(ids_.size());
    const index_t length = std::min(record.size() - 1, places_);
    if (begin > 0 && begin + length > places_) return false;
    for (index_t i = 0; i < length; ++i) {
      ids_.push_back(record.ids[static_cast<std::size_t>(i)]);
      positions_.push_back(static_cast<std::int32_t>(i));
      targets_.push_back(i + 1 >= record.target_begin ? record.ids[static_cast<std::size_t>(i + 1)] : -1);
    }
    spans_.push_back({begin, begin + length, begin, 0});
    return true;
  }

  double run(evaluation& out) {
    const index_t tokens = static_cast<index_t>(ids_.size());
    const auto input = batch_.set(*ctx_, {{ids_.data(), tokens},
                                          {positions_.data(), tokens},
                                          {spans_.data(), static_cast<index_t>(spans_.size())},
                                          {targets_.data(), tokens},
                                          {}});
    workspace<space> kept(kept_.data(), kept_.size());
    workspace<space> scratch(scratch_.data(), scratch_.size());
    model_->carve_state(kept, tokens, false, state_);
    load_.clear(*ctx_);
    model_->forward(*ctx_, input, state_, {}, nullptr, nullptr, scratch,
                    [this](index_t layer, const auto& s) {
                      detail::count_load(*ctx_, *model_, layer, s, {}, load_.view());
                    });
    model_->loss(*ctx_, input, state_, 1.0f, losses_.view(), {}, scratch);
    const vector_view<const float> losses = losses_.read(*ctx_);
    const vector_view<const std::int32_t> load = load_.read(*ctx_);
    for (index_t i = 0; i < load.size; ++i) out.load[static_cast<std::size_t>(i)] += load[i];
    double sum = 0.0;
    for (index_t i = 0; i < tokens; ++i) {
      sum += static_cast<double>(losses[i]);
      out.tokens += targets_[static_cast<std::size_t>(i)] >= 0 ? 1 : 0;
    }
    return sum;
  }

  X* ctx_;
  const Model* model_;
  index_t places_;
  batch_memory<resource> batch_;
  mirrored_buffer<float, resource> losses_;
  mirrored_buffer<std::int32_t, resource> load_;
  std::vector<std::int32_t> ids_, positions_, targets_;
  std::vector<attention_span> spans_;
  typename Model::state state_;
  buffer<std::byte, resource> kept_, scratch_;
};

}  // namespace pesc
