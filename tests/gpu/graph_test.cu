// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include "gpu/device.hpp"
#include "pesc/cuda.cuh"
#include "pesc/model/placed_model.hpp"

namespace {

using pesc::cuda_backend;
using pesc::index_t;
using layer = pesc::moe_layer<pesc::moe_dynamic<pesc::bf16>, cuda_backend>;
using model = pesc::llama<layer>;

constexpr index_t tokens = 20;

/// \brief A crafted stories260K and all the memory of its training steps.
class training {
 public:
  explicit training(cuda_backend& ctx)
      : ctx_{&ctx},
        loaded_{crafted()},
        placed_(ctx, loaded_, 1),
        gradient_(placed_.trainable_count()),
        first_(placed_.trainable_count()),
        second_(placed_.trainable_count()),
        norm_(1),
        losses_(tokens),
        kept_(1 << 24),
        scratch_(1 << 24),
        pool_(4, 2),
        batch_(tokens) {
    pesc::moe_options options = loaded_.ffn_options();
    options.adapter_dropout = 0.2f;
    options.lora_dropout = 0.1f;
    placed_->set_options(options);
  }

  /// \brief The tokens of step `step`, in device memory.
  void feed(int step) {
    std::vector<std::int32_t> ids, positions, targets;
    for (index_t i = 0; i < tokens; ++i) {
      ids.push_back(static_cast<std::int32_t>((17 * step + 31 * i) % 500 + 3));
      positions.push_back(static_cast<std::int32_t>(i % 10));
      targets.push_back(i % 10 == 9 ? -1 : static_cast<std::int32_t>((17 * step + 31 * (i + 1)) % 500 + 3));
    }
    const std::vector<pesc::attention_span> spans{{0, 10, 0, 0}, {10, 20, 10, 0}};
    const std::vector<std::uint8_t> valid(tokens, 1);
    input_ = batch_.set(*ctx_, {{ids.data(), tokens},
                                {positions.data(), tokens},
                                {spans.data(), 2},
                                {targets.data(), tokens},
                                {valid.data(), tokens}});
  }

  /// \brief Enqueues everything of a step; nothing waits for the device.
  void step(const pesc::gpu::step_values& v) {
    const pesc::moe_run run{.training = true, .seed = v.seed, .step = v.step};
    pesc::workspace<pesc::device_space> kept(kept_.data(), kept_.size()),
        ws(scratch_.data(), scratch_.size());
    auto state = placed_->carve_state(kept, tokens, true);
    auto dhidden = kept.take<float>(tokens, placed_->shape().hidden);
    fill(*ctx_, gradient_.view(), 0.0f);
    pool_.clear(*ctx_);
    placed_->forward(*ctx_, input_, state, run, nullptr, &pool_, ws);
    placed_->loss(*ctx_, input_, state, v.loss_scale, losses_.view(), dhidden, ws);
    const auto balance = pool_.gradient(*ctx_, {.coefficient = 0.01f, .z_coefficient = 0.001f}, input_.valid);
    placed_->backward(*ctx_, input_, state, pesc::as_const(dhidden), placed_->views_over(gradient_.view()),
                      balance, run, {}, ws);
    squared_norm(*ctx_, pesc::as_const(gradient_.view()), norm_.view(), ws);
    adamw_step(*ctx_, placed_.arena(), pesc::as_const(gradient_.view()), first_.view(), second_.view(),
               v.adamw, pesc::as_const(norm_.view()), 1.0);
  }

  [[nodiscard]] std::vector<float> trainables() {
    std::vector<float> out(static_cast<std::size_t>(placed_.trainable_count()));
    download(*ctx_, pesc::as_const(placed_.arena()),
             pesc::vector_view<float>{out.data(), placed_.trainable_count()});
    support::note_bits(out);
    return out;
  }

 private:
  static pesc::loaded_model<> crafted() {
    auto out = pesc::load_model({PESC_EXAMPLE_DATA "/stories260K.bin"},
                                {pesc::nf4<64, pesc::double_quant<>>::info()});
    out.config.pesc = pesc::pesc_config{.experts = 4, .top_k = 2, .adapter_dim = 8, .moe_scaling = 1.0};
    out.lora = pesc::lora_config{4, 8.0, 0.0, {}};
    return out;
  }

  cuda_backend* ctx_;
  pesc::loaded_model<> loaded_;
  pesc::placed_model<layer> placed_;
  pesc::device_buffer<float> gradient_, first_, second_;
  pesc::device_buffer<double> norm_;
  pesc::device_buffer<float> losses_;
  pesc::device_buffer<std::byte> kept_, scratch_;
  pesc::balance_pool<pesc::device_resource> pool_;
  pesc::batch_memory<pesc::device_resource> batch_;
  model::input input_{};
};

pesc::gpu::step_values values_of(int step) {
  return {.seed = 5,
          .step = static_cast<std::uint32_t>(step),
          .loss_scale = 1.0f / static_cast<float>(18 + step),
          .adamw = pesc::adamw_step_coefficients({}, 1e-3 / (step + 1), step + 1)};
}

TEST_SUITE("gpu/graph") {
  TEST_CASE("three replays of a captured training step equal three eager steps bit for bit, dropout on") {
    cuda_backend ctx;
    training eager(ctx);
    const std::vector<float> start = eager.trainables();
    for (int step = 0; step < 3; ++step) {
      eager.feed(step);
      eager.step(values_of(step));
    }

    training captured(ctx);
    pesc::device_buffer<pesc::gpu::step_values> current(1);
    captured.feed(0);
    ctx.read_step_values(current.data());
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t replay = nullptr;
    PESC_CUDA_TRY(cudaStreamBeginCapture(ctx.stream(), cudaStreamCaptureModeThreadLocal));
    captured.step(values_of(99));  // what the arguments say does not count
    PESC_CUDA_TRY(cudaStreamEndCapture(ctx.stream(), &graph));
    PESC_CUDA_TRY(cudaGraphInstantiate(&replay, graph, 0));
    for (int step = 0; step < 3; ++step) {
      captured.feed(step);
      const pesc::gpu::step_values now = values_of(step);
      upload(ctx, pesc::vector_view<const pesc::gpu::step_values>{&now, 1}, current.view());
      PESC_CUDA_TRY(cudaGraphLaunch(replay, ctx.stream()));
    }
    ctx.read_step_values(nullptr);
    const std::vector<float> expected = eager.trainables();
    CHECK(captured.trainables() == expected);
    CHECK(expected != start);
    PESC_CUDA_TRY(cudaGraphExecDestroy(replay));
    PESC_CUDA_TRY(cudaGraphDestroy(graph));
  }
}

}  // namespace
