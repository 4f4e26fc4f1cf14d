// SPDX-License-Identifier: Apache-2.0
// A user's own router, activation, expert and executor, in the user's namespace.

#include <algorithm>
#include <cmath>
#include <string>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include "pesc/pesc.hpp"
#include "support/host_isas.hpp"
#include "support/layer_run.hpp"
#include "support/near.hpp"

namespace user {

using pesc::index_t;

/// x / (1 + |x|)
struct softsign {
  static float value(float x) { return x / (1.0f + std::fabs(x)); }
  static float derivative(float x) { return 1.0f / ((1.0f + std::fabs(x)) * (1.0f + std::fabs(x))); }
};

/// Token t goes to expert t mod E with a gate that is its logit; every third token to no expert at all.
struct turn_router {
  static constexpr int top_k = 1;
  static constexpr pesc::residual_kind residual = pesc::residual_kind::one;

  template <class Space>
  using parameters = pesc::router_parameters<Space>;
  template <class Space>
  struct state : pesc::routing_state<Space> {
    static state carve(const turn_router& router, pesc::workspace<Space>& ws, const pesc::moe_shape& shape,
                       index_t tokens) {
      return {pesc::routing_state<Space>::carve(ws, tokens, shape.experts, router.max_slots(tokens))};
    }
  };

  explicit turn_router(const pesc::moe_shape& shape) : experts{shape.experts} {}
  [[nodiscard]] static index_t max_slots(index_t tokens) { return tokens; }

  index_t experts;
};

template <class X, class Space>
void route_forward(X& ctx, const turn_router& router, pesc::matrix_view<const float, Space> x,
                   const pesc::router_parameters<Space>& p, const pesc::routing_state<Space>& state,
                   const pesc::moe_run&, pesc::workspace<Space>& ws) {
  matmul(ctx, x, as_const(p.weight), state.logits, {.transpose_b = true}, ws);
  if (ws.counting()) return;
  number_slots(ctx, 1, state.token);
  for (index_t t = 0; t < state.slots(); ++t) {
    const index_t expert = t % 3 == 2 ? router.experts : t % router.experts;
    state.expert[t] = static_cast<std::int32_t>(expert);
    state.gate[t] = expert < router.experts ? state.logits(t, expert) : 0.0f;
  }
}

template <class X, class Space>
void route_backward(X& ctx, const turn_router& router, pesc::matrix_view<const float, Space> x,
                    const pesc::router_parameters<Space>& p, const pesc::routing_state<Space>& state,
                    pesc::vector_view<const float, Space> dgate, const pesc::balance_gradient<Space>&,
                    pesc::matrix_view<float, Space> dx, const pesc::router_parameters<Space>& gradient,
                    const pesc::moe_run&, pesc::workspace<Space>& ws) {
  const typename pesc::workspace<Space>::scope scratch(ws);
  auto dlogits = ws.template take<float>(state.logits.rows, state.logits.cols);
  if (!ws.counting()) {
    fill(ctx, dlogits, 0.0f);
    for (index_t t = 0; t < state.slots(); ++t)
      if (state.expert[t] < router.experts) dlogits(t, state.expert[t]) = dgate[t];
  }
  matmul(ctx, as_const(dlogits), x, gradient.weight, {.transpose_a = true, .accumulate = true}, ws);
  matmul(ctx, as_const(dlogits), as_const(p.weight), dx, {.accumulate = true}, ws);
}

/// Expert e multiplies its input elementwise by a vector, which starts as zero.
template <pesc::expert_input Input>
struct scaling_expert {
  static constexpr int rank = 1;
  static constexpr pesc::expert_input input = Input;

  template <class Space>
  struct parameters {
    pesc::matrix_view<float, Space> scale;  ///< [experts, hidden]

    static parameters carve(pesc::parameter_arena<Space>& arena, const pesc::moe_shape& shape) {
      return {arena.take(shape.experts, shape.hidden)};
    }
    template <class F>
    void for_each(F&& f) const {
      f(std::string("scale"), pesc::as_batch(scale));
    }
    void initialize(const pesc::random_stream&) const { pesc::fill_zero(pesc::as_batch(scale)); }
  };

  template <class Space>
  struct state {
    static state carve(pesc::workspace<Space>&, const pesc::moe_shape&, index_t) { return {}; }
  };
};

/// Calls f(row of the group, token, expert) for every kept slot.
template <class F>
void for_each_kept(const pesc::slot_groups<>& groups, F&& f) {
  for (index_t e = 0; e < groups.experts; ++e)
    for (index_t row = groups.expert_offsets[e]; row < groups.expert_offsets[e + 1]; ++row)
      f(row, groups.token_of[row], e);
}

template <class X, pesc::expert_input Input, class P, class S>
void experts_forward(X&, scaling_expert<Input>, pesc::matrix_view<const float> h,
                     const pesc::slot_groups<>& groups, const P& p, const S&, pesc::matrix_view<float> out,
                     const pesc::moe_options& options, const pesc::moe_run&, pesc::workspace<>& ws) {
  if (ws.counting()) return;
  for_each_kept(groups, [&](index_t row, index_t t, index_t e) {
    for (index_t i = 0; i < h.cols; ++i) out(row, i) = options.expert_scale * h(t, i) * p.scale(e, i);
  });
}

template <class X, pesc::expert_input Input, class P, class S>
void experts_backward(X&, scaling_expert<Input>, pesc::matrix_view<const float> h,
                      const pesc::slot_groups<>& groups, pesc::vector_view<const float> gate, const P& p,
                      const S&, pesc::matrix_view<const float> dy, pesc::vector_view<float> dgate,
                      pesc::matrix_view<float> dh, const P& gradient, const pesc::moe_options& options,
                      const pesc::moe_run&, pesc::workspace<>& ws) {
  if (ws.counting()) return;
  for (float& value : dgate) value = 0.0f;
  for_each_kept(groups, [&](index_t row, index_t t, index_t e) {
    const index_t slot = groups.slots[row];
    for (index_t i = 0; i < h.cols; ++i) {
      const float d = options.expert_scale * dy(t, i);
      dgate[slot] += d * h(t, i) * p.scale(e, i);
      gradient.scale(e, i) += d * gate[slot] * h(t, i);
      dh(t, i) += d * gate[slot] * p.scale(e, i);
    }
  });
}

/// Chunks in reverse order on threads that live as long as the loop.
struct reversed_threads {
  int threads = 3;

  [[nodiscard]] int concurrency() const { return threads; }
  void parallel_for(index_t count, index_t grain, pesc::cpu::chunk_function f) const {
    const index_t chunks = pesc::ceil_div(count, grain);
    std::vector<std::thread> running;
    for (int worker = 0; worker < threads; ++worker)
      running.emplace_back([&, worker] {
        for (index_t c = chunks - 1 - worker; c >= 0; c -= threads)
          f(c * grain, std::min((c + 1) * grain, count), worker);
      });
    for (std::thread& thread : running) thread.join();
  }
};

static_assert(pesc::Activation<softsign>);
static_assert(pesc::Router<turn_router>);
static_assert(pesc::Expert<scaling_expert<pesc::expert_input::layer_input>>);
static_assert(pesc::cpu::Executor<reversed_threads>);

template <pesc::expert_input Input>
struct own_everything : pesc::moe_defaults {
  static constexpr int experts = 4;
  using router = turn_router;
  using shared = pesc::gated_ffn<softsign>;
  using expert = scaling_expert<Input>;
  using weight = pesc::unquantized<float>;
};
static_assert(pesc::MoeConfig<own_everything<pesc::expert_input::shared_output>>);

}  // namespace user

namespace {

using pesc::index_t;
using backend = pesc::cpu::context<user::reversed_threads>;

constexpr index_t hidden = 6;
constexpr index_t tokens = 7;

struct soft_layer : pesc::moe_defaults {
  static constexpr int experts = 4;
  using shared = pesc::gated_ffn<user::softsign>;
  using expert = pesc::adapter_expert<5, user::softsign>;
};

struct usual_layer : pesc::moe_defaults {
  static constexpr int experts = 4;
  using expert = pesc::adapter_expert<8>;
  using lora = pesc::lora<4>;
};

template <class Layer>
Layer make_layer(backend& ctx) {
  Layer layer(ctx, {.hidden = hidden, .intermediate = 10}, {.expert_scale = 0.5f}, 1);
  support::fill_trainables(layer.parameters(), 2, 0.5);
  return layer;
}

/// <y, dy> in double for changed inputs or parameters.
template <class Layer>
double objective(backend& ctx, const Layer& layer, support::layer_run<Layer>& io,
                 typename Layer::buffers& buffers) {
  io.forward(ctx, layer, buffers);
  double sum = 0;
  for (std::size_t i = 0; i < io.y.size(); ++i)
    sum += static_cast<double>(io.y[i]) * static_cast<double>(io.dy[i]);
  return sum;
}

/// Central differences of `objective` for n numbers.
template <class Objective>
std::vector<double> differences(float* values, index_t n, Objective&& f) {
  std::vector<double> out;
  constexpr float step = 1.0f / 64;
  for (index_t i = 0; i < n; ++i) {
    const float kept = values[i];
    values[i] = kept + step;
    const double above = f();
    values[i] = kept - step;
    const double below = f();
    values[i] = kept;
    out.push_back((above - below) / (2 * static_cast<double>(step)));
  }
  return out;
}

}  // namespace

TEST_SUITE("moe/policy") {
  TEST_CASE_TEMPLATE("a layer of policies in the user's namespace has the gradients of its outputs", Config,
                     user::own_everything<pesc::expert_input::layer_input>,
                     user::own_everything<pesc::expert_input::shared_output>) {
    using layer_type = pesc::moe_layer<Config, backend>;
    backend ctx;
    const auto layer = make_layer<layer_type>(ctx);
    auto buffers = layer.prepare(ctx, tokens);
    support::layer_run io(layer, tokens);
    io.forward(ctx, layer, buffers);
    io.backward(ctx, layer, buffers);

    const auto f = [&] { return objective(ctx, layer, io, buffers); };
    CHECK(support::near(io.dx, differences(io.x.data(), tokens * hidden, f), 2e-3));
    layer.parameters().for_each([&](const std::string& name, pesc::batch_view<float> tensor) {
      CAPTURE(name);
      const index_t offset = tensor.data - layer.parameters().router.weight.data;
      const float* gradient = io.gradients.views().router.weight.data + offset;
      const std::vector<float> actual(gradient, gradient + tensor.size());
      CHECK(support::near(actual, differences(tensor.data, tensor.size(), f), 2e-3));
    });
  }

  TEST_CASE("a token that a user's router drops keeps its shared output and sends no gradient to experts") {
    using layer_type = pesc::moe_layer<user::own_everything<pesc::expert_input::shared_output>, backend>;
    backend ctx;
    const auto layer = make_layer<layer_type>(ctx);
    auto buffers = layer.prepare(ctx, tokens);
    support::layer_run io(layer, tokens);
    io.forward(ctx, layer, buffers);
    CHECK(buffers.load(0) + buffers.load(1) + buffers.load(2) + buffers.load(3) == 5);
    const auto& h = buffers.state().shared.out;
    for (index_t t = 0; t < tokens; ++t) {
      bool equal = true;
      for (index_t i = 0; i < hidden; ++i)
        equal = equal && io.y[static_cast<std::size_t>(t * hidden + i)] == h(t, i);
      CHECK(equal == (t % 3 == 2));
    }
  }

  TEST_CASE("a user's activation gives the same layer on every instruction set, through its scalar form") {
    using layer_type = pesc::moe_layer<soft_layer, pesc::cpu_backend>;
    std::vector<float> expected;
    for (const auto level : support::host_isas()) {
      CAPTURE(std::string(pesc::cpu::name_of(level)));
      pesc::cpu_backend ctx(level);
      const layer_type layer(ctx, {.hidden = 40, .intermediate = 90});
      support::fill_trainables(layer.parameters(), 2);
      auto buffers = layer.prepare(ctx, 9);
      support::layer_run io(layer, 9);
      io.forward(ctx, layer, buffers);
      io.backward(ctx, layer, buffers);
      if (expected.empty()) expected = io.results();
      CHECK(support::near(io.results(), expected, 1e-5));
    }
  }

  TEST_CASE("a user's executor gives the bits of the library's pool") {
    const auto results = [](auto& ctx) {
      pesc::moe_layer<usual_layer, std::remove_reference_t<decltype(ctx)>> layer(
          ctx, {.hidden = 130, .intermediate = 200});
      support::fill_trainables(layer.parameters(), 2);
      auto buffers = layer.prepare(ctx, 90);
      support::layer_run io(layer, 90);
      io.forward(ctx, layer, buffers);
      io.backward(ctx, layer, buffers);
      return io.results();
    };
    backend mine(user::reversed_threads{4});
    pesc::cpu_backend pool(1);
    CHECK(support::same_bits(results(mine), results(pool)));
  }
}
