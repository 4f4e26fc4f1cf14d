// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "pesc/moe/plan.hpp"
#include "pesc/moe/upcycle.hpp"

namespace pesc {

/// \brief Owns an arena of the trainable tensors of one layer: weights, gradients or moments.
template <MoeConfig Config, class Resource = host_resource>
class owned_parameters {
 public:
  using space = typename Resource::memory_space;

  owned_parameters() = default;

  /// \brief All zeros.
  /// \param shape  completed by `complete<Config>`, as `moe_layer::shape()` returns it
  explicit owned_parameters(const moe_shape& shape) : arena_(moe_trainables<Config, space>::size(shape)) {
    parameter_arena<space> arena(arena_.data(), arena_.size());
    views_ = moe_trainables<Config, space>::carve(arena, shape);
  }

  [[nodiscard]] vector_view<float, space> arena() { return arena_.view(); }
  [[nodiscard]] vector_view<const float, space> arena() const { return arena_.view(); }
  [[nodiscard]] const moe_trainables<Config, space>& views() const { return views_; }
  operator const moe_trainables<Config, space>&() const { return views_; }

 private:
  buffer<float, Resource> arena_;
  moe_trainables<Config, space> views_;
};

/// \brief Memory of one caller of a layer: what is kept for backward, and scratch.
template <MoeConfig Config, class X>
class moe_buffers {
 public:
  using plan = plan_for<Config, X>;
  using space = typename X::memory_space;

  /// \brief Tokens that the buffers were made for.
  [[nodiscard]] index_t max_tokens() const { return max_tokens_; }

  /// \brief Logits, experts and gates of the last forward call; slot t · k + j is choice j of token t.
  [[nodiscard]] const routing_state<space>& routing() const { return state_.routing; }

  /// \brief Assignments of the last forward call ordered by expert and by token.
  [[nodiscard]] const slot_groups<space>& groups() const { return state_.groups; }

  /// \brief Tokens that expert `e` processed in the last forward call.
  [[nodiscard]] index_t load(index_t e) const requires std::is_same_v<space, host_space> {
    return state_.groups.expert_offsets[e + 1] - state_.groups.expert_offsets[e];
  }

  [[nodiscard]] const typename plan::state& state() const { return state_; }

 private:
  template <MoeConfig, class>
  friend class moe_layer;

  index_t max_tokens_ = 0;
  bool inference_ = false;
  buffer<std::byte, resource_of<X>> kept_;
  buffer<std::byte, resource_of<X>> scratch_;
  typename plan::state state_{};
  moe_run run_{};
};

/// \brief A mixture of adapter experts behind one frozen feed-forward network (PESC, equations 7 to 9).
///
/// y = rho · h + Σ gate · s · Up(act(Down(h))) with h = FFN(x), evaluated once per token. `forward` is const and may run
/// in several threads at once, each with its own context and buffers.
template <MoeConfig Config, class X>
class moe_layer {
 public:
  using config = Config;
  using backend = X;
  template <class Other>
  using on = moe_layer<Config, Other>;  ///< the same layer on another backend
  using plan = plan_for<Config, X>;
  using space = typename X::memory_space;
  using resource = resource_of<X>;
  using activation = typename Config::activation;
  using router = typename Config::router;
  using trainables = moe_trainables<Config, space>;
  using frozen = moe_frozen<Config, space>;
  using buffers = moe_buffers<Config, X>;
  using owned_weights = frozen_ffn<typename Config::weight, resource>;
  using owned_trainables = owned_parameters<Config, resource>;
  using state = typename plan::state;
  static constexpr bool routed = true;

  /// \brief A layer over the caller's memory, which must outlive it.
  /// \throws shape_error when sizes do not fit together
  moe_layer(const moe_shape& shape, const frozen& weights, const trainables& parameters,
            const moe_options& options = {})
      : shape_{complete<Config>(shape)},
        options_{options},
        router_(shape_),
        frozen_{weights},
        parameters_{parameters} {
    check_options(options_);
    frozen_.check(shape_);
    check_parameters();
  }

  /// \brief Upcycles a dense feed-forward network: quantises its weights and starts every expert as the identity.
  /// \param format  needed where the configuration leaves the format dynamic
  template <Scalar T>
  moe_layer(X& ctx, const moe_shape& shape, const dense_ffn<T>& dense, const moe_options& options = {},
            std::uint64_t seed = 0, const format_info* format = nullptr)
      : moe_layer(ctx, shape, owned_weights(ctx, format_of<Config>(format), dense), options, seed) {}

  /// \brief A layer over frozen weights that it takes over, quantised already; fresh adapters and router.
  moe_layer(X& ctx, const moe_shape& shape, owned_weights weights, const moe_options& options = {},
            std::uint64_t seed = 0)
      : shape_{complete<Config>(shape)},
        options_{options},
        router_(shape_),
        owned_frozen_{std::make_unique<owned_weights>(std::move(weights))},
        owned_{std::make_unique<owned_trainables>(shape_)} {
    check_options(options_);
    frozen_ = owned_frozen_->template view<frozen>();
    frozen_.check(shape_);
    parameters_ = owned_->views();
    // Starting values are made on the host, so that they do not depend on the backend.
    owned_parameters<Config> start(shape_);
    start.views().initialize(seed);
    upload(ctx, std::as_const(start).arena(), owned_->arena());
  }

  /// \brief A layer with random weights of its own, for trials and measurements.
  explicit moe_layer(X& ctx, const moe_shape& shape, const moe_options& options = {}, std::uint64_t seed = 0,
                     const format_info* format = nullptr)
      : moe_layer(random_layer(ctx, shape, options, seed, format)) {}

  [[nodiscard]] const moe_shape& shape() const { return shape_; }
  [[nodiscard]] const moe_options& options() const { return options_; }
  [[nodiscard]] const trainables& parameters() const { return parameters_; }
  [[nodiscard]] const frozen& weights() const { return frozen_; }

  /// \brief Exchanges run-time numbers, such as dropout.
  /// \throws shape_error for values out of range; the options then stay as they are
  void set_options(const moe_options& options) {
    check_options(options);
    options_ = options;
  }

  /// \brief An arena of zeros of this layer's layout, for gradients or moments.
  [[nodiscard]] owned_trainables make_gradients() const { return owned_trainables(shape_); }

  /// \brief Bytes kept between forward and backward for `tokens` rows.
  [[nodiscard]] index_t state_bytes(index_t tokens) const {
    workspace<space> counting;
    static_cast<void>(plan::carve(counting, router_, shape_, tokens, options_));
    return counting.peak();
  }

  /// \brief Scratch bytes that suffice for every call with up to `max_tokens` rows.
  [[nodiscard]] index_t scratch_bytes(X& ctx, index_t max_tokens) const {
    return most_of(max_tokens, [&, this](index_t tokens) { return scratch_bytes_for(ctx, tokens); });
  }

  /// \brief Memory for calls with up to `max_tokens` rows. The only step that allocates.
  [[nodiscard]] buffers prepare(X& ctx, index_t max_tokens) const {
    buffers out = prepare_kept(max_tokens);
    out.scratch_ = buffer<std::byte, resource>(scratch_bytes(ctx, max_tokens));
    return out;
  }

  /// \brief The same for `forward` outside training only: less memory, and nothing of backward is compiled.
  [[nodiscard]] buffers prepare_inference(X& ctx, index_t max_tokens) const {
    buffers out = prepare_kept(max_tokens);
    out.inference_ = true;
    out.scratch_ = buffer<std::byte, resource>(most_of(max_tokens, [&, this](index_t tokens) {
      workspace<space> scratch;
      count_forward(ctx, tokens, {}, scratch);
      return scratch.peak();
    }));
    return out;
  }

  /// \brief y [tokens, hidden] from x [tokens, hidden]; x must stay unchanged until `backward`.
  /// \throws shape_error when sizes do not fit
  void forward(X& ctx, matrix_view<const activation, space> x, matrix_view<activation, space> y, buffers& b,
               const moe_run& run = {}) const {
    check_rows("x", x.rows, x.cols, x.rows, b);
    check_rows("y", y.rows, y.cols, x.rows, b);
    PESC_EXPECTS(!(run.training && b.inference_),
                 "training with buffers of prepare_inference: prepare them with prepare");
    workspace<space> kept(b.kept_.data(), b.kept_.size());
    b.state_ = plan::carve(kept, router_, shape_, x.rows, options_);
    b.run_ = run;
    workspace<space> scratch(b.scratch_.data(), b.scratch_.size());
    plan::forward(ctx, router_, x, frozen_, parameters_, y, b.state_, shape_, options_, run, scratch);
  }

  /// \brief Writes dx [tokens, hidden] and adds to `gradient`, after a `forward` of the same rows with these buffers.
  /// \throws shape_error when sizes do not fit
  void backward(X& ctx, matrix_view<const activation, space> dy, matrix_view<activation, space> dx,
                const trainables& gradient, buffers& b, const balance_gradient<space>& balance = {}) const {
    PESC_EXPECTS(!b.inference_, "backward with buffers of prepare_inference: prepare them with prepare");
    check_rows("dy", dy.rows, dy.cols, b.state_.routing.logits.rows, b);
    check_rows("dx", dx.rows, dx.cols, dy.rows, b);
    workspace<space> scratch(b.scratch_.data(), b.scratch_.size());
    plan::backward(ctx, router_, dy, frozen_, parameters_, dx, gradient, b.state_, balance, shape_, options_,
                   b.run_, scratch);
  }

  /// \brief Adds what the last `forward` with these buffers chose to the sums of the auxiliary losses.
  /// \param valid  [tokens], 0 for rows that do not count; empty: all count
  void pool_balance(X& ctx, balance_pool<resource>& pool, buffers& b,
                    vector_view<const std::uint8_t, space> valid = {}) const {
    workspace<space> scratch(b.scratch_.data(), b.scratch_.size());
    count_choices(ctx, b.state_, pool.sums(), valid, scratch);
  }

  // The same calls over memory that a model carves for all its layers.

  [[nodiscard]] state carve_state(workspace<space>& ws, index_t tokens) const {
    return plan::carve(ws, router_, shape_, tokens, options_);
  }
  void forward(X& ctx, matrix_view<const activation, space> x, matrix_view<activation, space> y, state& s,
               const moe_run& run, workspace<space>& ws) const {
    plan::forward(ctx, router_, x, frozen_, parameters_, y, s, shape_, options_, run, ws);
  }
  void backward(X& ctx, matrix_view<const activation, space> dy, matrix_view<activation, space> dx,
                const trainables& gradient, state& s, const balance_gradient<space>& balance,
                const moe_run& run, workspace<space>& ws) const {
    plan::backward(ctx, router_, dy, frozen_, parameters_, dx, gradient, s, balance, shape_, options_, run,
                   ws);
  }

 private:
  static moe_layer random_layer(X& ctx, const moe_shape& shape, const moe_options& options,
                                std::uint64_t seed, const format_info* format) {
    const moe_shape full = complete<Config>(shape);
    buffer<float> gate(full.intermediate * full.hidden);
    buffer<float> up(full.intermediate * full.hidden);
    buffer<float> down(full.hidden * full.intermediate);
    random_stream stream{.seed = seed, .site = random_site::initial_weights, .part = 64};
    for (buffer<float>* weight : {&gate, &up, &down}) {
      fill_uniform({weight->data(), 1, 1, weight->size()}, weight == &down ? full.intermediate : full.hidden,
                   stream);
      ++stream.part;
    }
    const dense_ffn<float> dense{gate.matrix(full.intermediate, full.hidden),
                                 up.matrix(full.intermediate, full.hidden),
                                 down.matrix(full.hidden, full.intermediate)};
    return moe_layer(ctx, shape, dense, options, seed, format);
  }

  static void check_options(const moe_options& o) {
    PESC_EXPECTS(o.adapter_dropout >= 0.0f && o.adapter_dropout < 1.0f, "adapter dropout ", o.adapter_dropout,
                 ": must be at least 0 and below 1");
    PESC_EXPECTS(o.lora_dropout >= 0.0f && o.lora_dropout < 1.0f, "LoRA dropout ", o.lora_dropout,
                 ": must be at least 0 and below 1");
    PESC_EXPECTS(std::isfinite(o.expert_scale) && std::isfinite(o.lora_alpha),
                 "expert scale and LoRA alpha must be finite");
  }

  /// Views of the caller's memory must have the sizes that carving for this shape gives.
  void check_parameters() const {
    parameter_arena<space> counting;
    std::vector<batch_view<float, space>> expected;
    trainables::carve(counting, shape_).for_each([&](const std::string&, batch_view<float, space> tensor) {
      expected.push_back(tensor);
    });
    std::size_t i = 0;
    parameters_.for_each([&](const std::string& name, batch_view<float, space> tensor) {
      PESC_EXPECTS(i < expected.size(), name, " is not a parameter of a layer of this shape");
      const batch_view<float, space>& e = expected[i++];
      PESC_EXPECTS(tensor.count == e.count && tensor.rows == e.rows && tensor.cols == e.cols, name, " of ",
                   tensor.count, " x ", tensor.rows, " x ", tensor.cols, ", expected ", e.count, " x ",
                   e.rows, " x ", e.cols);
    });
    PESC_EXPECTS(i == expected.size(), "a layer of this shape has ", expected.size(),
                 " trainable tensors, found ", i);
  }

  void check_rows(const char* name, index_t rows, index_t cols, index_t expected, const buffers& b) const {
    PESC_EXPECTS(cols == shape_.hidden, name, " has ", cols, " columns, the layer's hidden size is ",
                 shape_.hidden);
    PESC_EXPECTS(rows == expected, name, " has ", rows, " rows, expected ", expected);
    PESC_EXPECTS(rows <= b.max_tokens_, name, " has ", rows, " rows, the buffers were prepared for ",
                 b.max_tokens_);
  }

  static void count_choices(X& ctx, const state& s, const balance_sums<space>& sums,
                            vector_view<const std::uint8_t, space> valid, workspace<space>& ws) {
    const routing_state<space>& r = s.routing;
    balance_accumulate(ctx, as_const(r.logits), as_const(r.token), r.chosen(), valid, sums, ws);
  }

  /// The largest value of `bytes(tokens)`: a path for few rows can need more than one for many, so the sizes below every
  /// path boundary are tried.
  template <class Bytes>
  [[nodiscard]] static index_t most_of(index_t max_tokens, const Bytes& bytes) {
    index_t most = 0;
    for (index_t tokens = 1; tokens <= max_tokens;
         tokens = tokens < 64 ? tokens + 1 : std::min(2 * tokens, max_tokens)) {
      most = std::max(most, bytes(tokens));
      if (tokens == max_tokens) break;
    }
    return most;
  }

  [[nodiscard]] buffers prepare_kept(index_t max_tokens) const {
    PESC_EXPECTS(max_tokens >= 1, "buffers for ", max_tokens, " tokens: at least one is needed");
    buffers out;
    out.max_tokens_ = max_tokens;
    out.kept_ = buffer<std::byte, resource>(state_bytes(max_tokens));
    return out;
  }

  /// Runs the plan's forward on a counting workspace; returns the state that it used.
  state count_forward(X& ctx, index_t tokens, const moe_run& run, workspace<space>& scratch) const {
    workspace<space> kept;
    state s = plan::carve(kept, router_, shape_, tokens, options_);
    const matrix_view<activation, space> rows(nullptr, tokens, shape_.hidden);
    plan::forward(ctx, router_, as_const(rows), frozen_, parameters_, rows, s, shape_, options_, run,
                  scratch);
    return s;
  }

  [[nodiscard]] index_t scratch_bytes_for(X& ctx, index_t tokens) const {
    moe_run run;
    run.training = true;  // dropout needs scratch that inference does not
    workspace<space> scratch;
    state s = count_forward(ctx, tokens, run, scratch);
    const matrix_view<activation, space> rows(nullptr, tokens, shape_.hidden);
    plan::backward(ctx, router_, as_const(rows), frozen_, parameters_, rows, parameters_, s, {}, shape_,
                   options_, run, scratch);
    count_choices(ctx, s, {}, {}, scratch);
    return scratch.peak();
  }

  moe_shape shape_;
  moe_options options_;
  router router_;
  std::unique_ptr<owned_weights> owned_frozen_;
  std::unique_ptr<owned_trainables> owned_;
  frozen frozen_{};
  trainables parameters_{};
};

}  // namespace pesc
