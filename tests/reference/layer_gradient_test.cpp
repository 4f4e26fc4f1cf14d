// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include "support/gradient_check.hpp"
#include "support/near.hpp"
#include "support/random.hpp"
#include "support/reference.hpp"

namespace {

using namespace reference;

matrix normal(index_t rows, index_t cols, std::uint64_t seed, double deviation = 1) {
  return {rows, cols, support::normal_doubles(rows * cols, seed, deviation)};
}

linear with_lora(index_t out, index_t in, index_t rank, std::uint64_t seed) {
  return {normal(out, in, seed, 0.5),
          {},
          {normal(rank, in, seed + 1, 0.5), normal(out, rank, seed + 2, 0.5), 0.6, {}}};
}

struct layer_case {
  router_options router;
  index_t experts = 4;
  index_t rank = 3;
  residual shared = residual::one;
  double noisy_weight = 0;  ///< factor of the noisy balance loss; noise is on when it is not 0
  bool dropout = false;
};

constexpr index_t tokens = 6, hidden = 5, middle = 7;

moe_layer layer_of(const layer_case& c) {
  moe_layer layer;
  layer.ffn.gate = with_lora(middle, hidden, 2, 10);
  layer.ffn.up = with_lora(middle, hidden, 2, 20);
  layer.ffn.down = with_lora(hidden, middle, 2, 30);
  layer.router.weight = normal(c.experts, hidden, 40);
  if (c.router.kind == router_kind::noisy_top_k)
    layer.router.noise_weight = normal(c.experts, hidden, 50, 0.5);
  for (index_t e = 0; e < c.experts; ++e) {
    const auto seed = static_cast<std::uint64_t>(100 + 2 * e);
    layer.experts.push_back({normal(c.rank, hidden, seed, 0.5), normal(hidden, c.rank, seed + 1, 0.5)});
  }
  layer.routing = c.router;
  layer.expert_scale = 0.8;
  layer.shared = c.shared;
  return layer;
}

/// Loss sum(y (.) target) + balance + z (or the noisy loss), and all of its gradients against differences.
void check_layer(const layer_case& c) {
  moe_layer layer = layer_of(c);
  matrix x = normal(tokens, hidden, 1);
  const matrix target = normal(tokens, hidden, 2);
  layer_randomness random;
  if (c.noisy_weight != 0) random.router_noise = normal(tokens, c.experts, 3);
  if (c.dropout) {
    const index_t rows = tokens * c.router.top_k;
    random.adapter_masks = matrix(rows, hidden, support::dropout_mask(rows * hidden, 4, 0.3));
  }
  const auto loss = [&] {
    const layer_state s = layer_forward(layer, x, random);
    double sum = 0.5 * balance_loss({s.routed}).loss + 0.1 * z_loss({s.routed}).loss;
    if (c.noisy_weight != 0) sum += noisy_balance_loss(s.routed, c.noisy_weight).loss;
    for (index_t i = 0; i < x.count(); ++i) sum += s.y[i] * target[i];
    return sum;
  };
  const layer_state s = layer_forward(layer, x, random);
  logit_gradients auxiliary;
  add_to(auxiliary.logits, balance_loss({s.routed}).dlogits[0], 0.5);
  add_to(auxiliary.logits, z_loss({s.routed}).dlogits[0], 0.1);
  if (c.noisy_weight != 0) {
    const logit_gradients noisy = noisy_balance_loss(s.routed, c.noisy_weight).gradient;
    add_to(auxiliary.logits, noisy.logits);
    add_to(auxiliary.deviation_raw, noisy.deviation_raw);
  }
  const layer_gradients g = layer_backward(layer, s, target, auxiliary);
  CHECK(support::near(g.dx, support::central_differences(x, loss, 2e-4), 1e-8));
  int tensors = 0;
  visit_trainable("mlp", layer, g, [&](const std::string& name, matrix& tensor, const matrix& gradient) {
    CAPTURE(name);
    ++tensors;
    CHECK(support::near(gradient, support::central_differences(tensor, loss, 2e-4), 1e-8, 1e-3));
  });
  const bool noisy = c.router.kind == router_kind::noisy_top_k;
  CHECK(tensors == 6 + 1 + static_cast<int>(noisy) + 2 * static_cast<int>(c.experts));
}

TEST_CASE("layer gradients agree with differences for softmax routers, expert counts, k and ranks") {
  const struct {
    index_t experts, k, rank;
  } sizes[] = {{1, 1, 1}, {3, 1, 2}, {3, 3, 5}, {5, 2, 3}, {8, 4, 1}};
  for (const auto& size : sizes)
    for (const residual shared : {residual::one, residual::gate_sum}) {
      CAPTURE(size.experts);
      CAPTURE(size.k);
      CAPTURE(size.rank);
      check_layer({{router_kind::softmax_after_top_k, size.k}, size.experts, size.rank, shared});
      check_layer({{router_kind::softmax_before_top_k, size.k, true}, size.experts, size.rank, shared});
      check_layer({{router_kind::softmax_before_top_k, size.k, false}, size.experts, size.rank, shared});
    }
}

TEST_CASE("layer gradients agree with differences under dropout of adapter inputs") {
  check_layer({{router_kind::softmax_after_top_k, 3}, 5, 3, residual::one, 0, true});
  check_layer({{router_kind::softmax_before_top_k, 2, false}, 4, 3, residual::gate_sum, 0, true});
}

TEST_CASE("layer gradients agree with differences for noisy top-k with both load indicators") {
  for (const load_indicator indicator : {load_indicator::noisy_logit, load_indicator::llama_moe})
    for (const index_t k : {1, 2, 3, 5}) {
      CAPTURE(k);
      layer_case c{{router_kind::noisy_top_k, k}, 5, 2, residual::one, 0.7};
      c.router.indicator = indicator;
      check_layer(c);
    }
}

TEST_CASE("layer gradients agree with differences for Switch with and without dropped tokens") {
  for (const index_t capacity : {0, 1, 2}) {
    layer_case c{{router_kind::switch_top_1, 1}, 3, 3, residual::one};
    c.router.capacity = capacity;
    check_layer(c);
    c.shared = residual::gate_sum;
    check_layer(c);
  }
}

TEST_CASE("with zero upper matrices the layer is its dense network") {
  for (const bool before : {false, true}) {
    moe_layer layer =
        layer_of({{before ? router_kind::softmax_before_top_k : router_kind::softmax_after_top_k, 2}});
    for (adapter& expert : layer.experts) expert.up = matrix(hidden, 3);
    const matrix x = normal(tokens, hidden, 1);
    const layer_state s = layer_forward(layer, x);
    CHECK(support::near(s.y, ffn_forward(layer.ffn, x).out, 0));
    const layer_gradients g = layer_backward(layer, s, normal(tokens, hidden, 2));
    CHECK(support::near(g.router.weight, matrix(4, hidden), 0));
    for (const adapter& d : g.experts) CHECK(support::near(d.down, matrix(3, hidden), 0));
  }
}

TEST_CASE("the output is the gated sum of experts that each repeat the shared network") {
  const moe_layer layer = layer_of({{router_kind::softmax_after_top_k, 2}});
  const matrix x = normal(tokens, hidden, 1);
  const layer_state s = layer_forward(layer, x);
  matrix y(tokens, hidden);
  for (const assignment& a : s.routed.assignments) {
    const matrix row(1, hidden,
                     std::vector<double>(x.data() + a.token * hidden, x.data() + (a.token + 1) * hidden));
    matrix out = ffn_forward(layer.ffn, row).out;
    matrix narrow = product_transposed(out, layer.experts[a.expert].down);
    for (double& value : narrow.values) value = activate(activation::gelu, value);
    add_to(out, product_transposed(narrow, layer.experts[a.expert].up), layer.expert_scale);
    for (index_t i = 0; i < hidden; ++i) y(a.token, i) += a.gate * out[i];
  }
  CHECK(support::near(s.y, y, 1e-13));
}

}  // namespace
