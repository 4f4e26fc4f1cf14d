// SPDX-License-Identifier: Apache-2.0
//
// Policies of one's own: a router, an activation and an executor, none of them known to the library. A concept says what
// each must have; the free functions of a router are found by its namespace.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <thread>
#include <vector>

#include "pesc/pesc.hpp"

namespace mine {

using namespace pesc;

// An activation is a tag with a value and a derivative.
struct squared_relu {
  static float value(float x) { return x > 0.0f ? x * x : 0.0f; }
  static float derivative(float x) { return x > 0.0f ? 2.0f * x : 0.0f; }
};
static_assert(Activation<squared_relu>);

// A router whose gate is the sigmoid of the logit: the gates of a token are independent and need not sum to 1.
struct sigmoid_router {
  static constexpr int top_k = 2;
  static constexpr residual_kind residual = residual_kind::one;  // y = h + Σ gate · expert

  template <class Space>
  using parameters = router_parameters<Space>;
  template <class Space>
  struct state : routing_state<Space> {
    static state carve(const sigmoid_router& router, workspace<Space>& ws, const moe_shape& shape,
                       index_t tokens) {
      return {routing_state<Space>::carve(ws, tokens, shape.experts, router.max_slots(tokens))};
    }
  };

  explicit sigmoid_router(const moe_shape&) {}
  index_t max_slots(index_t tokens) const { return tokens * top_k; }
};
static_assert(Router<sigmoid_router>);

template <class X>
void route_forward(X& ctx, const sigmoid_router&, matrix_view<const float> x, const router_parameters<>& p,
                   const routing_state<>& state, const moe_run&, workspace<>& ws) {
  matmul(ctx, x, as_const(p.weight), state.logits, {.transpose_b = true}, ws);
  if (ws.counting()) return;  // every stage is also run once only to count its scratch
  top_k_softmax(ctx, as_const(state.logits), sigmoid_router::top_k, {}, state.expert, state.gate);
  number_slots(ctx, sigmoid_router::top_k, state.token);
  for (index_t s = 0; s < state.slots(); ++s)
    state.gate[s] = 1.0f / (1.0f + std::exp(-state.logits(state.token[s], state.expert[s])));
}

template <class X>
void route_backward(X& ctx, const sigmoid_router&, matrix_view<const float> x, const router_parameters<>& p,
                    const routing_state<>& state, vector_view<const float> dgate, const balance_gradient<>&,
                    matrix_view<float> dx, const router_parameters<>& gradient, const moe_run&,
                    workspace<>& ws) {
  const workspace<>::scope scratch(ws);
  auto dlogits = ws.take<float>(state.logits.rows, state.logits.cols);
  if (!ws.counting()) {
    fill(ctx, dlogits, 0.0f);
    for (index_t s = 0; s < state.slots(); ++s)
      dlogits(state.token[s], state.expert[s]) += dgate[s] * state.gate[s] * (1.0f - state.gate[s]);
  }
  matmul(ctx, as_const(dlogits), x, gradient.weight, {.transpose_a = true, .accumulate = true}, ws);
  matmul(ctx, as_const(dlogits), as_const(p.weight), dx, {.accumulate = true}, ws);
}

// An executor runs the chunks of a loop; here a plain thread for each part. A program with a pool hands the chunks to it.
struct thread_each {
  static constexpr int concurrency() { return 2; }
  void parallel_for(index_t count, index_t grain, cpu::chunk_function f) const {
    const auto half = [&](int worker) {
      for (index_t begin = worker * grain; begin < count; begin += 2 * grain)
        f(begin, std::min(begin + grain, count), worker);
    };
    std::thread other(half, 1);
    half(0);
    other.join();
  }
};
static_assert(cpu::Executor<thread_each>);

struct layer_config : moe_defaults {
  static constexpr int experts = 4;
  using router = sigmoid_router;
  using expert = adapter_expert<8, squared_relu>;
};
static_assert(MoeConfig<layer_config>);

template <class X>
std::vector<float> run(X& ctx) {
  constexpr index_t tokens = 5, hidden = 32;
  moe_layer<layer_config, X> layer{ctx, {.hidden = hidden, .intermediate = 80}};
  fill_uniform(layer.parameters().experts.up, 8, {.seed = 1});
  std::vector<float> x(tokens * hidden), y(x.size()), dx(x.size());
  fill_uniform({x.data(), 1, tokens, hidden}, 1, {.seed = 2});
  auto buffers = layer.prepare(ctx, tokens);
  auto gradients = layer.make_gradients();
  layer.forward(ctx, {x.data(), tokens, hidden}, {y.data(), tokens, hidden}, buffers);
  layer.backward(ctx, {y.data(), tokens, hidden}, {dx.data(), tokens, hidden}, gradients, buffers);
  std::printf("gates of token 0: %.3f and %.3f\n", static_cast<double>(buffers.routing().gate[0]),
              static_cast<double>(buffers.routing().gate[1]));
  dx.insert(dx.end(), gradients.arena().begin(), gradients.arena().end());
  return dx;
}

}  // namespace mine

int main() {
  pesc::cpu::context<mine::thread_each> mine_ctx;
  pesc::cpu_backend ctx;
  const bool same = mine::run(mine_ctx) == mine::run(ctx);
  std::printf("own executor against the pool of the library: %s\n", same ? "the same bits" : "DIFFERENT");
  return same ? 0 : 1;
}
