// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <numeric>
#include <vector>

#include "pesc/model/llama.hpp"
#include "pesc/model/load_model.hpp"
#include "pesc/pesc.hpp"
#include "support/random.hpp"

namespace support {

using sparse_layer = pesc::moe_layer<pesc::moe_dynamic<>, pesc::cpu_backend>;
using dense_layer = pesc::dense_layer<pesc::moe_dynamic<>, pesc::cpu_backend>;

/// \brief A decoder with the arena of its trainable tensors.
template <class FeedForward>
struct decoder {
  pesc::buffer<float> arena;
  pesc::llama<FeedForward> model;

  decoder(const pesc::model_weights<pesc::any_format>& weights, const pesc::moe_shape& shape,
          const pesc::moe_options& options, std::uint64_t seed = 1)
      : arena(pesc::llama<FeedForward>::parameter_count(weights.shape, shape)),
        model(weights, shape, options, arena.view()) {
    model.initialize(seed);
  }

  /// \brief As the loaded model says, its trainable tensors filled.
  explicit decoder(const pesc::loaded_model<>& loaded)
      : decoder(loaded.weights, loaded.ffn_shape(), loaded.ffn_options()) {
    static_cast<void>(pesc::load_trainables(model, loaded));
  }

  /// \brief Random values in every trainable tensor; gaps of the arena stay zero.
  void randomize(std::uint64_t seed) {
    pesc::for_each_trainable(model.parameters(), [&](const std::string&, pesc::trainable_kind, auto m) {
      const auto values = normal_floats(m.size(), ++seed, 0.1);
      std::copy(values.begin(), values.end(), m.data);
    });
  }

  [[nodiscard]] std::vector<float> values() const { return {arena.data(), arena.data() + arena.size()}; }

  /// \brief Logits of every token of one sequence, [tokens, vocabulary].
  std::vector<float> logits(const std::vector<std::int32_t>& ids) {
    pesc::cpu_backend ctx(1);
    const auto tokens = static_cast<pesc::index_t>(ids.size());
    std::vector<std::int32_t> positions(ids.size());
    std::iota(positions.begin(), positions.end(), 0);
    const std::vector<pesc::attention_span> spans{{0, tokens, 0, 0}};
    const pesc::model_input<> batch{std::span{ids}, std::span<const std::int32_t>{positions},
                                    std::span{spans}};
    std::vector<float> out(ids.size() * static_cast<std::size_t>(model.shape().vocabulary));
    const auto run = [&](pesc::workspace<>& ws) {
      auto state = model.carve_state(ws, tokens, false);
      model.forward(ctx, batch, state, {}, nullptr, nullptr, ws);
      model.logits(ctx, pesc::as_const(state.hidden), {out.data(), tokens, model.shape().vocabulary}, ws);
    };
    pesc::workspace<> counting;
    run(counting);
    pesc::buffer<std::byte> memory(counting.peak());
    pesc::workspace<> ws(memory.data(), memory.size());
    run(ws);
    return out;
  }
};

}  // namespace support
