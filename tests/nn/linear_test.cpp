// SPDX-License-Identifier: Apache-2.0
#include "pesc/nn/linear.hpp"

#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "pesc/pesc.hpp"
#include "support/host_isas.hpp"
#include "support/layer_bridge.hpp"

namespace {

using pesc::index_t;

struct sizes {
  index_t tokens, in, out, rank;
  bool bias;
  float dropout;
};

constexpr sizes all_sizes[] = {
    {1, 8, 8, 0, false, 0}, {5, 70, 33, 3, true, 0}, {17, 33, 130, 9, false, 0.3f}, {0, 16, 16, 2, true, 0}};

template <class Stage>
void run(const Stage& stage) {
  pesc::workspace<> counting;
  stage(counting);
  pesc::buffer<std::byte> memory(counting.peak() + 1);
  pesc::workspace<> ws(memory.data(), counting.peak());
  stage(ws);
  CHECK(ws.peak() == counting.peak());
}

reference::matrix to_double(const std::vector<float>& values, index_t rows, index_t cols) {
  return support::to_reference(pesc::matrix_view<const float>(values.data(), rows, cols));
}

template <class Compute, class Format>
void compare(pesc::cpu_backend& ctx, const sizes& s, double tolerance) {
  CAPTURE(s.tokens);
  CAPTURE(s.in);
  const auto weight = support::normal_floats(s.out * s.in, 1, 0.2);
  const auto packed =
      pesc::pack(pesc::quantize<Format>(pesc::matrix_view<const float>(weight.data(), s.out, s.in)));
  const auto bias = support::normal_floats(s.out, 2);
  pesc::frozen_linear<Format> layer{packed.view(), {}};
  if (s.bias) layer.bias = std::span(bias);
  CHECK(layer.in() == s.in);
  CHECK(layer.out() == s.out);

  pesc::buffer<float> memory(4096), gradient_memory(4096);
  const auto carve = [&](pesc::buffer<float>& block) {
    pesc::parameter_arena<> arena(block.data(), block.size());
    return pesc::lora_parameters<>::carve(arena, s.rank, s.in, s.out);
  };
  const auto values = support::normal_floats(4096, 3, 0.3);
  const auto p = carve(memory);
  const auto g = carve(gradient_memory);
  std::copy(values.begin(), values.end(), memory.data());
  const pesc::lora_run call{0.5f, s.dropout, {.seed = 4, .site = pesc::random_site::lora_dropout}};

  const auto x = support::normal_floats(s.tokens * s.in, 5);
  const auto dy = support::normal_floats(s.tokens * s.out, 6);
  const auto start = support::normal_floats(s.tokens * s.in, 7);
  std::vector<float> y(dy.size()), dx = start;
  const pesc::matrix_view<const float> x_rows(x.data(), s.tokens, s.in), dy_rows(dy.data(), s.tokens, s.out);
  std::vector<float> xa(static_cast<std::size_t>(s.tokens * s.rank + 1));
  const pesc::linear_state<> state{{xa.data(), s.tokens, s.rank}};
  run([&](pesc::workspace<>& ws) {
    pesc::linear_forward<Compute>(ctx, x_rows, layer, p, call,
                                  pesc::matrix_view<float>(y.data(), s.tokens, s.out), state, ws);
  });
  const auto backward = [&](bool accumulate) {
    run([&](pesc::workspace<>& ws) {
      pesc::linear_backward<Compute>(ctx, x_rows, layer, p, call, dy_rows,
                                     pesc::matrix_view<float>(dx.data(), s.tokens, s.in), accumulate, g,
                                     state, ws);
    });
  };
  backward(true);

  const auto mask =
      s.dropout > 0 ? support::dropout_factors(call.stream, s.tokens, s.in, s.dropout) : reference::matrix{};
  const auto exact = support::to_reference(layer, p, 0.5, mask);
  const auto expected =
      reference::linear_backward(exact, to_double(x, s.tokens, s.in), to_double(dy, s.tokens, s.out));
  CHECK(support::near(y, reference::linear_forward(exact, to_double(x, s.tokens, s.in)).values, tolerance));
  reference::matrix added = expected.dx;
  add_to(added, to_double(start, s.tokens, s.in));
  CHECK(support::near(dx, added.values, tolerance));
  if (s.rank > 0) {
    CHECK(support::near(g.a, expected.a, tolerance));
    CHECK(support::near(g.b, expected.b, tolerance));
  }
  backward(false);  // writes dx, adds to the factors' gradients again
  CHECK(support::near(dx, expected.dx.values, tolerance));
  if (s.rank > 0) CHECK(support::near(g.b, reference::scaled(expected.b, 2), tolerance));
}

}  // namespace

TEST_SUITE("nn/linear") {
  TEST_CASE("forward and backward agree with the double reference on every instruction set") {
    for (const auto level : support::host_isas()) {
      CAPTURE(std::string(pesc::cpu::name_of(level)));
      pesc::cpu_backend ctx(2, pesc::cpu::runtime_isa{level});
      for (const sizes& s : all_sizes) {
        compare<float, pesc::nf4<64, pesc::double_quant<>>>(ctx, s, 1e-5);
        compare<float, pesc::unquantized<float>>(ctx, s, 1e-5);
        compare<pesc::bf16, pesc::nf4<64, pesc::double_quant<>>>(ctx, s, 2e-2);
      }
    }
  }

  TEST_CASE("without a rank nothing is kept") {
    pesc::workspace<> counting;
    CHECK(pesc::linear_state<>::carve(counting, 10, 0).xa.empty());
    CHECK(counting.peak() == 0);
    CHECK(pesc::linear_state<>::carve(counting, 10, 4).xa.rows == 10);
    CHECK(counting.peak() == 192);
  }
}
