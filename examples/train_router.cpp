// SPDX-License-Identifier: Apache-2.0
//
// Training by hand: forward, balance loss, backward, clipping and AdamW on a toy task. Tokens come from four groups, and
// what is to be computed differs from group to group, so experts that share the work by group do better than one for all.

#include <cmath>
#include <cstdio>
#include <vector>

#include "pesc/pesc.hpp"

namespace {

using pesc::index_t;

struct layer_config : pesc::moe_defaults {
  static constexpr int experts = 4;
  using router = pesc::top_k_router<2>;
  using expert = pesc::adapter_expert<16>;
};
using layer_type = pesc::moe_layer<layer_config, pesc::cpu_backend>;

constexpr index_t tokens = 128;
constexpr index_t hidden = 16;
constexpr index_t groups = 4;
constexpr int steps = 600;

// Token t belongs to group t mod 4: the group's own direction plus noise; the target turns the noise by the group's rule.
struct batch {
  std::vector<float> x, target;

  explicit batch(std::uint32_t step) : x(tokens * hidden), target(tokens * hidden) {
    const pesc::random_stream noise{.seed = 5, .step = step};
    for (index_t t = 0; t < tokens; ++t)
      for (index_t i = 0; i < hidden; ++i) {
        const index_t group = t % groups;
        const auto at = [&](index_t col) {
          return 2.0f * noise.uniform(static_cast<std::uint32_t>(t), static_cast<std::uint32_t>(col)) - 1.0f;
        };
        const auto place = static_cast<std::size_t>(t * hidden + i);
        x[place] = at(i) + (i / 4 == group ? 2.0f : 0.0f);
        target[place] = at((i + 1 + 3 * group) % hidden) * (group % 2 == 0 ? 1.0f : -1.0f);
      }
  }
};

// Mean squared error of y + x against the target, and its gradient.
double loss_of(const batch& data, const std::vector<float>& y, std::vector<float>& dy) {
  double sum = 0.0;
  for (std::size_t i = 0; i < y.size(); ++i) {
    const float difference = y[i] - data.target[i];
    sum += static_cast<double>(difference * difference);
    dy[i] = 2.0f * difference / static_cast<float>(y.size());
  }
  return sum / static_cast<double>(y.size());
}

}  // namespace

int main() {
  pesc::cpu_backend ctx;
  // The parameters lie in an arena of ours, so that the optimiser is one call over all of them.
  const layer_type made{ctx, {.hidden = hidden, .intermediate = 128}};
  pesc::owned_parameters<layer_config> parameters(made.shape());
  const layer_type layer{made.shape(), made.weights(), parameters};
  parameters.views().initialize(1);
  auto gradients = layer.make_gradients();
  auto first_moment = layer.make_gradients();
  auto second_moment = layer.make_gradients();
  auto buffers = layer.prepare(ctx, tokens);

  const pesc::balance_options losses{.coefficient = 0.01f, .z_coefficient = 0.001f};
  pesc::balance_pool balance(layer.shape().experts, layer.shape().top_k);
  const pesc::schedule rate{
      .kind = pesc::schedule_kind::cosine, .base_rate = 2e-2, .warmup = 10, .total = steps};
  std::vector<float> y(tokens * hidden), dy(y.size()), dx(y.size());
  double first = 0.0;
  double last = 0.0;

  for (int step = 0; step < steps; ++step) {
    const batch data(static_cast<std::uint32_t>(step));
    layer.forward(ctx, {data.x.data(), tokens, hidden}, {y.data(), tokens, hidden}, buffers,
                  {.training = true});
    balance.clear(ctx);
    layer.pool_balance(ctx, balance, buffers);
    last = loss_of(data, y, dy);
    if (step == 0) first = last;
    if (step % 100 == 0 || step == steps - 1)
      std::printf("step %3d  loss %.4f  balance %.3f (even: 2)\n", step, last,
                  balance.values(ctx, losses).balance);

    fill(ctx, gradients.arena(), 0.0f);
    layer.backward(ctx, {dy.data(), tokens, hidden}, {dx.data(), tokens, hidden}, gradients, buffers,
                   balance.gradient(ctx, losses));
    const double norm = std::sqrt(squared_norm(ctx, std::as_const(gradients).arena()));
    adamw_step(ctx, parameters.arena(), std::as_const(gradients).arena(), first_moment.arena(),
               second_moment.arena(),
               pesc::adamw_step_coefficients({}, rate(step), step + 1, pesc::clip_factor(norm, 1.0)));
  }

  std::printf("\nshare of each group's choices, group by expert:\n");
  const auto& routing = buffers.routing();
  double shares[groups][layer_config::experts] = {};
  for (index_t slot = 0; slot < routing.slots(); ++slot)
    shares[routing.token[slot] % groups][routing.expert[slot]] += 0.5 * groups / static_cast<double>(tokens);
  bool specialised = true;
  for (const auto& row : shares) {
    double largest = 0.0;
    for (const double share : row) {
      std::printf("  %.2f", share);
      largest = std::fmax(largest, share);
    }
    std::printf("\n");
    specialised = specialised && largest > 0.4;
  }
  return last < 0.5 * first && specialised ? 0 : 1;
}
