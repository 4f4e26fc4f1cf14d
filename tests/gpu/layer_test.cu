// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include <doctest/doctest.h>

#include "gpu/device.hpp"
#include "gpu/layer_reference.hpp"
#include "pesc/cuda.cuh"
#include "support/near.hpp"
#include "support/random.hpp"

namespace {

using pesc::cuda_backend;
using pesc::index_t;

struct case_sizes {
  index_t hidden, intermediate, experts, top_k, rank, lora_rank, tokens;
};

// Off the tiles of every kernel, and once on them (hidden and intermediate multiples of 64).
constexpr case_sizes all_sizes[] = {
    {4, 3, 4, 2, 2, 2, 3},   {64, 128, 8, 2, 8, 4, 33}, {64, 172, 16, 4, 5, 3, 17},
    {65, 63, 3, 1, 7, 1, 5}, {128, 64, 1, 1, 1, 0, 70},
};

/// \brief Whether `forward` takes views of this memory.
template <class Layer, class Space>
concept takes_views_of = requires(const Layer& layer, cuda_backend& ctx,
                                  pesc::matrix_view<const float, Space> x, pesc::matrix_view<float, Space> y,
                                  typename Layer::buffers& b) {
  layer.forward(ctx, x, y, b);
};

using default_layer = pesc::moe_layer<pesc::moe_defaults, cuda_backend>;
static_assert(takes_views_of<default_layer, pesc::device_space>);
static_assert(!takes_views_of<default_layer, pesc::host_space>, "a host view would be read on the device");

/// \brief A layer on the device over caller memory, and the memory of its calls.
template <class Config>
class device_layer {
 public:
  using layer_type = pesc::moe_layer<Config, cuda_backend>;
  using trainables = pesc::moe_trainables<Config, pesc::device_space>;

  device_layer(cuda_backend& ctx, const support::layer_task& task, const std::vector<float>& values)
      : source_(ctx, task.shape, task.options, task.weight_seed, &task.format),
        arena_(ctx, values),
        gradients_(ctx, static_cast<index_t>(values.size())),
        layer(source_.shape(), source_.weights(), over(arena_), task.options) {}

  [[nodiscard]] support::layer_answer run(cuda_backend& ctx, const support::layer_task& task,
                                          const std::vector<float>& x, const std::vector<float>& dy) {
    support::on_device<float> x_there(ctx, x), dy_there(ctx, dy);
    support::on_device<float> y(ctx, static_cast<index_t>(x.size())), dx(ctx, static_cast<index_t>(x.size()));
    const auto rows = [&](support::on_device<float>& list) {
      return list.matrix(task.tokens, task.shape.hidden);
    };
    auto buffers = layer.prepare(ctx, task.tokens);
    layer.forward(ctx, pesc::as_const(rows(x_there)), rows(y), buffers, task.run);
    pesc::balance_pool<pesc::device_resource> pool(layer.shape().experts, layer.shape().top_k);
    pesc::balance_options losses;
    losses.z_coefficient = 0.001f;
    layer.pool_balance(ctx, pool, buffers);
    const auto balance = pool.gradient(ctx, losses);
    layer.backward(ctx, pesc::as_const(rows(dy_there)), rows(dx), over(gradients_), buffers,
                   task.balance ? balance : pesc::balance_gradient<pesc::device_space>{});
    support::layer_answer out{y.values(), dx.values(), gradients_.values(), {}, 0, 0};
    out.balance = pool.values(ctx, losses).balance;
    out.z = pool.values(ctx, losses).z;
    const auto chosen = buffers.routing().expert;
    out.expert.resize(static_cast<std::size_t>(chosen.size));
    download(ctx, pesc::as_const(chosen), pesc::vector_view<std::int32_t>{out.expert.data(), chosen.size});
    return out;
  }

 private:
  [[nodiscard]] trainables over(support::on_device<float>& memory) const {
    pesc::parameter_arena<pesc::device_space> carver(memory.data(), memory.view().size);
    return trainables::carve(carver, source_.shape());
  }

  layer_type source_;
  support::on_device<float> arena_, gradients_;

 public:
  layer_type layer;
};

template <class Config>
void compare(const case_sizes& z, const pesc::format_info& format, double tolerance,
             const pesc::moe_options& options, bool balance) {
  cuda_backend ctx;
  const support::layer_task task{.shape = {z.hidden, z.intermediate, z.experts, z.top_k, z.rank, z.lora_rank},
                                 .options = options,
                                 .format = format,
                                 .tokens = z.tokens,
                                 .run = {.training = true, .seed = 5, .step = 2, .layer = 1},
                                 .balance = balance};
  const auto trainables = support::random_trainables(task.shape, 11);
  const auto x = support::normal_floats(z.tokens * z.hidden, 3);
  const auto dy = support::normal_floats(z.tokens * z.hidden, 4);
  device_layer<Config> there(ctx, task, trainables);
  const support::layer_answer answer = there.run(ctx, task, x, dy);
  const support::layer_answer expected = support::reference_answer(task, trainables, x, dy);
  REQUIRE(answer.expert == expected.expert);
  CHECK(support::near(answer.y, expected.y, tolerance));
  CHECK(support::near(answer.dx, expected.dx, tolerance));
  CHECK(answer.balance == doctest::Approx(expected.balance).epsilon(1e-5));
  CHECK(answer.z == doctest::Approx(expected.z).epsilon(1e-5));
  there.layer.parameters().for_each([&](const std::string& name, auto tensor) {
    CAPTURE(name);
    const auto begin = static_cast<std::ptrdiff_t>(tensor.data - there.layer.parameters().router.weight.data);
    const auto part = [&](const std::vector<float>& arena) {
      return std::vector<float>(arena.begin() + begin, arena.begin() + begin + tensor.size());
    };
    CHECK(support::near(part(answer.gradients), part(expected.gradients), tolerance, 1e-2));
  });
}

TEST_SUITE("gpu/layer") {
  TEST_CASE("float compute agrees with the double reference at every size and format") {
    const pesc::format_info formats[] = {pesc::nf4<64, pesc::double_quant<>>::info(), pesc::nf4<32>::info(),
                                         pesc::fp4<128>::info(), pesc::unquantized<float>::info()};
    for (const case_sizes& sizes : all_sizes)
      for (const pesc::format_info& format : formats) {
        CAPTURE(sizes.hidden);
        CAPTURE(format.name);
        compare<pesc::moe_dynamic<>>(sizes, format, 1e-5, {.expert_scale = 0.25f, .lora_alpha = 2.0f},
                                     format.block == 64);
      }
  }

  TEST_CASE("bf16 compute agrees with the double reference") {
    for (const case_sizes& sizes : all_sizes) {
      CAPTURE(sizes.hidden);
      compare<pesc::moe_dynamic<pesc::bf16>>(sizes, pesc::nf4<64, pesc::double_quant<>>::info(), 2e-2,
                                             {.expert_scale = 0.5f, .lora_alpha = 2.0f}, false);
    }
  }

  TEST_CASE("dropout on adapters and LoRA, and computing the network again, change nothing else") {
    for (const case_sizes& sizes : all_sizes) {
      CAPTURE(sizes.hidden);
      compare<pesc::moe_dynamic<>>(sizes, pesc::nf4<32>::info(), 1e-5,
                                   {.expert_scale = 0.5f,
                                    .adapter_dropout = 0.3f,
                                    .lora_alpha = 2.0f,
                                    .lora_dropout = 0.2f,
                                    .recompute_ffn = true},
                                   true);
    }
  }
}

}  // namespace
