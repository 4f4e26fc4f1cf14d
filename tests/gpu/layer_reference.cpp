// SPDX-License-Identifier: Apache-2.0
#include "gpu/layer_reference.hpp"

#include "support/layer_bridge.hpp"

namespace support {
namespace {

using config = pesc::moe_dynamic<>;
using pesc::index_t;

void write(const reference::matrix& from, pesc::matrix_view<float> to) {
  for (index_t i = 0; i < to.rows; ++i)
    for (index_t j = 0; j < to.cols; ++j) to(i, j) = static_cast<float>(from(i, j));
}

std::vector<float> as_floats(const reference::matrix& m) { return {m.values.begin(), m.values.end()}; }

pesc::moe_trainables<config> views_over(std::vector<float>& arena, const pesc::moe_shape& shape) {
  pesc::parameter_arena<> carver(arena.data(), static_cast<index_t>(arena.size()));
  return pesc::moe_trainables<config>::carve(carver, shape);
}

void write_lora(const reference::linear_gradients& from, const pesc::lora_parameters<>& to) {
  write(from.a, to.a);
  write(from.b, to.b);
}

}  // namespace

std::vector<float> random_trainables(const pesc::moe_shape& shape, std::uint64_t seed) {
  const pesc::moe_shape full = pesc::complete<config>(shape);
  std::vector<float> out(static_cast<std::size_t>(pesc::moe_trainables<config>::size(full)));
  randomize(views_over(out, full), seed);
  return out;
}

layer_answer reference_answer(const layer_task& task, const std::vector<float>& trainables,
                              const std::vector<float>& x, const std::vector<float>& dy) {
  pesc::cpu_backend ctx(1);
  const pesc::moe_layer<config, pesc::cpu_backend> source(ctx, task.shape, task.options, task.weight_seed,
                                                          &task.format);
  std::vector<float> arena = trainables;
  const pesc::moe_layer<config, pesc::cpu_backend> layer(source.shape(), source.weights(),
                                                         views_over(arena, source.shape()), task.options);
  const pesc::moe_shape& shape = layer.shape();
  const auto rows = [&](const std::vector<float>& list) {
    return to_reference(pesc::matrix_view<const float>(list.data(), task.tokens, shape.hidden));
  };

  reference::layer_randomness random;
  if (task.run.training && task.options.adapter_dropout > 0.0f)
    random.adapter_masks =
        dropout_factors(task.run.stream(pesc::random_site::adapter_dropout), task.tokens * shape.top_k,
                        shape.hidden, task.options.adapter_dropout);
  const auto expected = to_reference(layer, task.run, task.tokens);
  const auto state = reference::layer_forward(expected, rows(x), random);

  layer_answer out;
  out.y = as_floats(state.y);
  for (const auto& a : state.routed.assignments) out.expert.push_back(static_cast<std::int32_t>(a.expert));
  reference::logit_gradients auxiliary;
  const auto pooled = reference::balance_loss({state.routed});
  const auto z_loss = reference::z_loss({state.routed});
  out.balance = pooled.loss;
  out.z = z_loss.loss;
  if (task.balance) {
    auxiliary.logits = reference::scaled(pooled.dlogits[0], 0.01);
    reference::add_to(auxiliary.logits, z_loss.dlogits[0], 0.001);
  }
  const auto g = reference::layer_backward(expected, state, rows(dy), auxiliary);
  out.dx = as_floats(g.dx);
  out.gradients.assign(trainables.size(), 0.0f);
  const auto views = views_over(out.gradients, shape);
  write(g.router.weight, views.router.weight);
  for (index_t e = 0; e < shape.experts; ++e) {
    const auto& expert = g.experts[static_cast<std::size_t>(e)];
    write(expert.down, views.experts.down[e]);
    write(expert.up, views.experts.up[e]);
  }
  if (shape.lora_rank > 0) {
    write_lora(g.ffn.gate, views.shared.gate);
    write_lora(g.ffn.up, views.shared.up);
    write_lora(g.ffn.down, views.shared.down);
  }
  return out;
}

}  // namespace support
