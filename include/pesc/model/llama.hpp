// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <vector>

#include "pesc/model/batch_memory.hpp"
#include "pesc/model/kv_cache.hpp"
#include "pesc/model/weights.hpp"
#include "pesc/moe/balance.hpp"
#include "pesc/moe/dense_layer.hpp"
#include "pesc/moe/layer.hpp"

namespace pesc {

/// \brief A Llama-type decoder; the feed-forward type decides whether it is dense or a mixture of experts.
///
/// Frozen tensors and the arena of trainable ones are the caller's and must outlive it. Calls on one object are not
/// concurrent; several objects may share weights.
/// \tparam FeedForward  `moe_layer<Config, X>` or `dense_layer<Config, X>`
template <class FeedForward>
class llama {
 public:
  using X = typename FeedForward::backend;
  using config = typename FeedForward::config;
  using space = typename X::memory_space;
  using resource = resource_of<X>;
  using input = model_input<space>;
  using cache = kv_cache<resource>;
  using format = typename config::weight;
  using compute = typename config::compute;

  /// \brief True for a mixture of experts, false for a dense model.
  [[nodiscard]] static constexpr bool config_routed() { return FeedForward::routed; }

  static_assert(std::is_same_v<typename FeedForward::activation, float>,
                "pesc: llama keeps activations in float");

  /// \brief The trainable tensors of one decoder layer.
  struct layer_trainables {
    attention_trainables<space> attention;
    typename FeedForward::trainables ffn;
  };
  using trainables = std::vector<layer_trainables>;

  /// \brief Views of all trainable tensors in the order of the arena: layer by layer, attention first.
  [[nodiscard]] static trainables carve_parameters(parameter_arena<space>& arena, const llama_shape& shape,
                                                   const moe_shape& ffn) {
    trainables out;
    for (index_t l = 0; l < shape.layers; ++l)
      out.push_back({attention_trainables<space>::carve(arena, shape, ffn.lora_rank),
                     FeedForward::trainables::carve(arena, ffn)});
    return out;
  }

  /// \brief Floats of the arena.
  [[nodiscard]] static index_t parameter_count(const llama_shape& shape, const moe_shape& ffn) {
    parameter_arena<space> counting;
    static_cast<void>(carve_parameters(counting, shape, ffn));
    return counting.size();
  }

  /// \param arena  `parameter_count` floats, 64-byte aligned
  /// \throws shape_error when sizes do not fit together
  llama(X& ctx, const model_weights<format, resource>& weights, const moe_shape& ffn,
        const moe_options& options, vector_view<float, space> arena)
      : llama(weights, ffn, options, arena, buffer<float, resource>(weights.shape.head_dim / 2)) {
    const buffer<float> host = frequencies_of(weights.shape);
    upload(ctx, host.view(), frequencies_.view());
  }

  /// \brief The same in host memory, where nothing has to be brought to a backend.
  llama(const model_weights<format, resource>& weights, const moe_shape& ffn, const moe_options& options,
        vector_view<float, space> arena) requires std::is_same_v<space, host_space>
      : llama(weights, ffn, options, arena, frequencies_of(weights.shape)) {}

  [[nodiscard]] const llama_shape& shape() const { return weights_->shape; }
  [[nodiscard]] const moe_shape& ffn_shape() const { return ffn_shape_; }
  [[nodiscard]] const moe_options& options() const { return options_; }
  [[nodiscard]] const trainables& parameters() const { return parameters_; }
  [[nodiscard]] const model_weights<format, resource>& weights() const { return *weights_; }

  /// \brief Starting values: the model computes exactly what its frozen weights compute.
  void initialize(std::uint64_t seed) const {
    for (std::size_t l = 0; l < parameters_.size(); ++l) {
      random_stream stream{.seed = seed,
                           .layer = static_cast<std::uint16_t>(l),
                           .site = random_site::initial_weights,
                           .part = 32};
      parameters_[l].attention.initialize(stream);
      if constexpr (FeedForward::routed) {
        parameters_[l].ffn.initialize(seed, static_cast<std::uint16_t>(l));
      } else {
        stream.part = 16;
        parameters_[l].ffn.initialize(stream);
      }
    }
  }

  // ---- what a call keeps -------------------------------------------------------------------------------------------

  /// \brief What one decoder layer keeps for backward.
  struct layer_state {
    matrix_view<float, space> x_in, x_mid;  ///< residual stream before attention and before the feed-forward
    vector_view<float, space> inv_in, inv_mid;  ///< factors of the two norms
    matrix_view<float, space> a, m;             ///< normalised inputs
    attention_state<space> attention;
    typename FeedForward::state ffn;
  };

  /// \brief What a forward call keeps: of every layer for training, of one layer otherwise.
  struct state {
    std::vector<layer_state> layers;
    matrix_view<float, space> x;       ///< [T, H], residual stream after the last layer
    matrix_view<float, space> hidden;  ///< [T, H], after the final norm
    vector_view<float, space> inv_final;

    /// \brief State of layer `l`; inference reuses one.
    [[nodiscard]] layer_state& layer(std::size_t l) { return layers.size() == 1 ? layers[0] : layers[l]; }
  };

  /// \param training  keep every layer's state; otherwise layers share one
  [[nodiscard]] state carve_state(workspace<space>& ws, index_t tokens, bool training) const {
    state s;
    carve_state(ws, tokens, training, s);
    return s;
  }

  /// \brief The same into an existing state, without allocating when its layer count stays.
  void carve_state(workspace<space>& ws, index_t tokens, bool training, state& s) const {
    const llama_shape& sh = shape();
    s.layers.resize(training ? layers_.size() : 1);
    for (layer_state& l : s.layers) {
      l.x_in = ws.template take<float>(tokens, sh.hidden);
      l.x_mid = ws.template take<float>(tokens, sh.hidden);
      l.inv_in = ws.template take<float>(tokens);
      l.inv_mid = ws.template take<float>(tokens);
      l.a = ws.template take<float>(tokens, sh.hidden);
      l.m = ws.template take<float>(tokens, sh.hidden);
      l.attention = attention_state<space>::carve(ws, sh, tokens, ffn_shape_.lora_rank);
      l.ffn = layers_[0].carve_state(ws, tokens);
    }
    s.x = ws.template take<float>(tokens, sh.hidden);
    s.hidden = ws.template take<float>(tokens, sh.hidden);
    s.inv_final = ws.template take<float>(tokens);
  }

  // ---- forward -----------------------------------------------------------------------------------------------------

  /// \brief Hidden states after the final norm, in `s.hidden`.
  ///
  /// \param seen  of one sequence: its rows are seen, and this call's keys and values are added; null: none
  /// \param balance  sums that every routed layer adds to; null: none
  /// \param observe  called as `observe(layer index, layer state)` after each feed-forward layer
  template <class Observe>
  void forward(X& ctx, const input& batch, state& s, const moe_run& run, cache* seen,
               balance_pool<resource>* balance, workspace<space>& ws, Observe&& observe) const {
    const typename workspace<space>::scope scratch(ws);
    const llama_shape& sh = shape();
    const index_t tokens = batch.ids.size;
    auto y = ws.template take<float>(tokens, sh.hidden);
    if (!ws.counting()) embedding(ctx, weights_->embedding_view(), batch.ids, s.x);
    for (std::size_t l = 0; l < layers_.size(); ++l) {
      layer_state& k = s.layer(l);
      const auto& w = weights_->layers[l];
      moe_run layer_run = run;
      layer_run.layer = static_cast<std::uint16_t>(l);
      auto keys = k.attention.k;
      auto values = k.attention.v;
      if (seen != nullptr) {
        // Keys and values go straight to the cache's rows behind those already seen.
        keys = seen->keys(static_cast<index_t>(l));
        values = seen->values(static_cast<index_t>(l));
        k.attention.k = keys.row_range(seen->size(), tokens);
        k.attention.v = values.row_range(seen->size(), tokens);
      }
      if (!ws.counting()) {
        copy(ctx, as_const(s.x), k.x_in);
        rms_norm(ctx, as_const(k.x_in), w.input_norm.view(), sh.rms_epsilon, k.a, k.inv_in);
      }
      attention_forward<compute>(ctx, as_const(k.a), w.attention(), parameters_[l].attention, k.attention,
                                 places(batch), as_const(keys), as_const(values), sh, ffn_shape_, options_,
                                 layer_run, y, ws);
      if (!ws.counting()) {
        copy(ctx, as_const(k.x_in), k.x_mid);
        add_scaled(ctx, as_const(y), 1.0f, k.x_mid);
        rms_norm(ctx, as_const(k.x_mid), w.post_norm.view(), sh.rms_epsilon, k.m, k.inv_mid);
      }
      layers_[l].forward(ctx, as_const(k.m), y, k.ffn, layer_run, ws);
      if (ws.counting()) continue;
      copy(ctx, as_const(k.x_mid), s.x);
      add_scaled(ctx, as_const(y), 1.0f, s.x);
      if constexpr (FeedForward::routed)
        if (balance != nullptr) pool_balance(ctx, k.ffn.routing, batch.valid, *balance, ws);
      observe(static_cast<index_t>(l), static_cast<const layer_state&>(k));
    }
    if constexpr (FeedForward::routed)
      if (ws.counting() && balance != nullptr)
        pool_balance(ctx, s.layers[0].ffn.routing, batch.valid, *balance, ws);
    if (ws.counting()) return;
    rms_norm(ctx, as_const(s.x), weights_->final_norm.view(), sh.rms_epsilon, s.hidden, s.inv_final);
    if (seen != nullptr) seen->advance(tokens);
  }

  void forward(X& ctx, const input& batch, state& s, const moe_run& run, cache* seen,
               balance_pool<resource>* balance, workspace<space>& ws) const {
    forward(ctx, batch, s, run, seen, balance, ws, [](index_t, const layer_state&) {});
  }

  /// \brief logits [rows, V] of hidden rows.
  void logits(X& ctx, matrix_view<const float, space> hidden, matrix_view<float, space> out,
              workspace<space>& ws) const {
    matmul(ctx, hidden, weights_->head_view(), out, {.transpose_b = true}, ws);
  }

  // ---- loss and backward -------------------------------------------------------------------------------------------

  /// \brief Rows whose logits exist at one time.
  static constexpr index_t loss_rows = 512;

  /// \brief Loss of every row in `losses` (0 without a target); with `dhidden`, the gradient of scale · their sum.
  void loss(X& ctx, const input& batch, const state& s, float scale, vector_view<float, space> losses,
            matrix_view<float, space> dhidden, workspace<space>& ws) const {
    const typename workspace<space>::scope scratch(ws);
    const index_t rows = std::min(loss_rows, batch.ids.size);
    auto block = ws.template take<float>(rows, shape().vocabulary);
    for (index_t begin = 0; begin < batch.ids.size; begin += loss_rows) {
      const index_t n = std::min(loss_rows, batch.ids.size - begin);
      auto z = block.row_range(0, n);
      logits(ctx, as_const(s.hidden.row_range(begin, n)), z, ws);
      const bool backward = dhidden.rows != 0;
      if (!ws.counting())
        cross_entropy(ctx, as_const(z), batch.targets.part(begin, n), scale, losses.part(begin, n),
                      backward ? z : matrix_view<float, space>{});
      if (backward) matmul(ctx, as_const(z), weights_->head_view(), dhidden.row_range(begin, n), {}, ws);
    }
  }

  /// \brief Adds to the gradients of all trainable tensors, from the gradient of the final hidden states.
  ///
  /// \param gradient  views over an arena of the parameters' layout
  /// \param dx  [T, H] receives the gradient of the embedded tokens; may alias `dhidden`'s memory
  void backward(X& ctx, const input& batch, state& s, matrix_view<const float, space> dhidden,
                const trainables& gradient, const balance_gradient<space>& balance, const moe_run& run,
                matrix_view<float, space> dx, workspace<space>& ws) const {
    const typename workspace<space>::scope scratch(ws);
    const llama_shape& sh = shape();
    auto through = ws.template take<float>(batch.ids.size, sh.hidden);
    auto stream = ws.template take<float>(batch.ids.size, sh.hidden);
    if (!ws.counting()) {
      fill(ctx, stream, 0.0f);
      rms_norm_backward(ctx, as_const(s.x), weights_->final_norm.view(), as_const(s.inv_final), dhidden,
                        stream);
    }
    for (std::size_t i = layers_.size(); i-- > 0;) {
      layer_state& k = s.layer(i);
      const auto& w = weights_->layers[i];
      moe_run layer_run = run;
      layer_run.layer = static_cast<std::uint16_t>(i);
      layers_[i].backward(ctx, as_const(stream), through, gradient[i].ffn, k.ffn, balance, layer_run, ws);
      if (!ws.counting())
        rms_norm_backward(ctx, as_const(k.x_mid), w.post_norm.view(), as_const(k.inv_mid), as_const(through),
                          stream);
      attention_block_backward<compute>(ctx, w.attention(), parameters_[i].attention, k.attention,
                                        places(batch), sh, ffn_shape_, options_, layer_run, as_const(stream),
                                        through, gradient[i].attention, ws);
      if (!ws.counting())
        rms_norm_backward(ctx, as_const(k.x_in), w.input_norm.view(), as_const(k.inv_in), as_const(through),
                          stream);
    }
    if (!ws.counting() && dx.rows != 0) copy(ctx, as_const(stream), dx);
  }

  /// \brief A set of views over another arena of the same layout, for gradients.
  [[nodiscard]] trainables views_over(vector_view<float, space> arena) const {
    parameter_arena<space> carver(arena.data, arena.size);
    return carve_parameters(carver, shape(), ffn_shape_);
  }

  /// \brief Exchanges run-time numbers, such as dropout, of all layers.
  void set_options(const moe_options& options) {
    options_ = options;
    for (FeedForward& layer : layers_) layer.set_options(options);
  }

 private:
  llama(const model_weights<format, resource>& weights, const moe_shape& ffn, const moe_options& options,
        vector_view<float, space> arena, buffer<float, resource> frequencies)
      : weights_{&weights},
        ffn_shape_{complete_shape(ffn)},
        options_{options},
        frequencies_{std::move(frequencies)} {
    parameter_arena<space> carver(arena.data, arena.size);
    parameters_ = carve_parameters(carver, weights.shape, ffn_shape_);
    for (index_t l = 0; l < weights.shape.layers; ++l) {
      const auto& w = weights.layers[static_cast<std::size_t>(l)];
      w.attention().check(weights.shape);
      layers_.emplace_back(ffn_shape_, w.template ffn<typename FeedForward::frozen>(),
                           parameters_[static_cast<std::size_t>(l)].ffn, options);
    }
  }

  /// Checks the shape too, before anything is made from it.
  static buffer<float> frequencies_of(const llama_shape& shape) {
    shape.check();
    buffer<float> out(shape.head_dim / 2);
    rope_frequencies(shape.rope, shape.head_dim, out.view());
    return out;
  }

  static moe_shape complete_shape(const moe_shape& ffn) {
    if constexpr (FeedForward::routed)
      return complete<config>(ffn);
    else
      return ffn;
  }

  [[nodiscard]] attention_places<space> places(const input& batch) const {
    return {batch.positions, batch.spans, frequencies_.view()};
  }

  template <class Routing>
  static void pool_balance(X& ctx, const Routing& routing, vector_view<const std::uint8_t, space> valid,
                           balance_pool<resource>& balance, workspace<space>& ws) {
    balance_accumulate(ctx, as_const(routing.logits), as_const(routing.token), routing.chosen(), valid,
                       balance.sums(), ws);
  }

  const model_weights<format, resource>* weights_;
  moe_shape ffn_shape_;
  moe_options options_;
  buffer<float, resource> frequencies_;
  trainables parameters_;
  std::vector<FeedForward> layers_;
};

}  // namespace pesc
