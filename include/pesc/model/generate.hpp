// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "pesc/core/function_ref.hpp"
#include "pesc/core/mirrored_buffer.hpp"
#include "pesc/model/llama.hpp"
#include "pesc/model/sampling.hpp"

namespace pesc {

/// \brief Runs one sequence through a model with a cache, a prompt at a time or a token at a time.
template <class Model>
class decoder {
 public:
  using X = typename Model::X;
  using space = typename X::memory_space;
  using resource = resource_of<X>;

  /// \brief Rows of a prompt that go through the model at one time.
  static constexpr index_t chunk = 128;

  /// \param capacity  most tokens of the sequence, prompt included
  decoder(X& ctx, const Model& model, index_t capacity)
      : ctx_{&ctx},
        model_{&model},
        cache_(model.shape(), capacity),
        logits_(model.shape().vocabulary),
        positions_(chunk),
        batch_(chunk) {
    seen_.reserve(static_cast<std::size_t>(std::max<index_t>(capacity, 0)));
    PESC_EXPECTS(capacity >= 1, "sequence of at most ", capacity, " tokens: at least one is needed");
    index_t kept = 0;
    index_t scratch = 0;
    for (index_t tokens = 1; tokens <= chunk; ++tokens) {
      workspace<space> counting_state;
      workspace<space> counting_scratch;
      model.carve_state(counting_state, tokens, false, state_);
      run(Model::input::counting(tokens), nullptr, counting_scratch);
      kept = std::max(kept, counting_state.peak());
      scratch = std::max(scratch, counting_scratch.peak());
    }
    kept_ = buffer<std::byte, resource>(kept);
    scratch_ = buffer<std::byte, resource>(scratch);
  }

  [[nodiscard]] index_t size() const { return cache_.size(); }
  [[nodiscard]] index_t capacity() const { return cache_.capacity(); }

  /// \brief Forgets the sequence.
  void clear() {
    cache_.clear();
    seen_.clear();
  }

  /// \brief Makes `ids` the sequence and returns the logits after its last token, as `push` does.
  ///
  /// What the sequence began with already is not computed again, such as the earlier turns of a conversation.
  /// \throws shape_error as `push`
  vector_view<const float> resume(std::span<const std::int32_t> ids) {
    std::size_t same = 0;
    while (same < ids.size() && same < seen_.size() && ids[same] == seen_[same]) ++same;
    // The logits are those of the last call, so the last token always runs.
    same = std::min(same, ids.empty() ? 0 : ids.size() - 1);
    cache_.shrink(static_cast<index_t>(same));
    seen_.resize(same);
    return push(ids.subspan(same));
  }

  /// \brief Appends tokens and returns the logits after the last of them [V], valid until the next call.
  /// \throws shape_error for an id outside the vocabulary, no tokens, or more than the capacity
  vector_view<const float> push(std::span<const std::int32_t> ids) {
    PESC_EXPECTS(!ids.empty(), "no token to go on from");
    PESC_EXPECTS(cache_.size() + static_cast<index_t>(ids.size()) <= cache_.capacity(), "sequence of ",
                 cache_.size() + static_cast<index_t>(ids.size()), " tokens, the memory holds ",
                 cache_.capacity());
    for (const std::int32_t id : ids)
      PESC_EXPECTS(id >= 0 && id < model_->shape().vocabulary, "token ", id, " is outside the vocabulary of ",
                   model_->shape().vocabulary);
    for (std::size_t begin = 0; begin < ids.size(); begin += chunk) {
      const index_t tokens = std::min<index_t>(chunk, static_cast<index_t>(ids.size() - begin));
      workspace<space> kept(kept_.data(), kept_.size());
      workspace<space> scratch(scratch_.data(), scratch_.size());
      model_->carve_state(kept, tokens, false, state_);
      run(input_of(ids.data() + begin, tokens), &cache_, scratch);
    }
    seen_.insert(seen_.end(), ids.begin(), ids.end());
    return logits_.read(*ctx_);
  }

 private:
  [[nodiscard]] typename Model::input input_of(const std::int32_t* ids, index_t tokens) {
    const index_t past = cache_.size();
    const attention_span span{0, tokens, 0, past};
    for (index_t i = 0; i < tokens; ++i) positions_[i] = static_cast<std::int32_t>(past + i);
    return batch_.set(*ctx_, {{ids, tokens}, {positions_.data(), tokens}, {&span, 1}});
  }

  void run(const typename Model::input& input, typename Model::cache* seen, workspace<space>& ws) {
    model_->forward(*ctx_, input, state_, {}, seen, nullptr, ws);
    const auto last = as_const(state_.hidden.row_range(input.ids.size - 1, 1));
    model_->logits(*ctx_, last, {logits_.view().data, 1, logits_.size()}, ws);
  }

  X* ctx_;
  const Model* model_;
  typename Model::cache cache_;
  std::vector<std::int32_t> seen_;  ///< the tokens that the cache stands for
  mirrored_buffer<float, resource> logits_;
  buffer<std::int32_t> positions_;
  batch_memory<resource> batch_;
  typename Model::state state_;
  buffer<std::byte, resource> kept_;
  buffer<std::byte, resource> scratch_;
};

/// \brief Continues a sequence from the logits after its last token: calls `emit(id)` for each token until it returns false, a stop id comes, or `max_tokens`.
///
/// \param stop  ids that end the text; they are not emitted
/// \returns the number of tokens emitted
template <class Model>
index_t generate(decoder<Model>& sequence, vector_view<const float> logits, index_t max_tokens,
                 const sampling_options& options, std::span<const std::int32_t> stop,
                 function_ref<bool(std::int32_t)> emit) {
  sampler next(options);
  for (index_t made = 0; made < max_tokens; ++made) {
    const std::int32_t id = next.draw(logits, sequence.size());
    if (std::find(stop.begin(), stop.end(), id) != stop.end()) return made;
    if (!emit(id)) return made + 1;
    if (sequence.size() == sequence.capacity() || made + 1 == max_tokens) return made + 1;
    logits = sequence.push({&id, 1});
  }
  return max_tokens;
}

/// \brief The same after appending `prompt` to the sequence.
template <class Model>
index_t generate(decoder<Model>& sequence, std::span<const std::int32_t> prompt, index_t max_tokens,
                 const sampling_options& options, std::span<const std::int32_t> stop,
                 function_ref<bool(std::int32_t)> emit) {
  return generate(sequence, sequence.push(prompt), max_tokens, options, stop, emit);
}

}  // namespace pesc
