// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include <doctest/doctest.h>

#include "support/gradient_check.hpp"
#include "support/near.hpp"
#include "support/random.hpp"
#include "support/reference.hpp"

namespace {

using namespace reference;
using numbers = std::vector<double>;

matrix normal(index_t rows, index_t cols, std::uint64_t seed, double deviation = 1) {
  return {rows, cols, support::normal_doubles(rows * cols, seed, deviation)};
}

double dot(const matrix& a, const matrix& b) {
  double sum = 0;
  for (index_t i = 0; i < a.count(); ++i) sum += a[i] * b[i];
  return sum;
}

numbers map_over(const numbers& values, double (*f)(activation, double), activation kind) {
  numbers result;
  for (const double value : values) result.push_back(f(kind, value));
  return result;
}

TEST_CASE("activations have their tabulated values and derivatives") {
  const numbers t = {-2, -1, 0, 0.5, 3};
  CHECK(support::near(map_over(t, activate, activation::silu),
                      numbers{-0.238405844, -0.268941421, 0, 0.311229666, 2.857722380}, 2e-10));
  CHECK(support::near(map_over(t, activation_derivative, activation::silu),
                      numbers{-0.090784249, 0.072329488, 0.5, 0.739961187, 1.088104106}, 5e-10));
  CHECK(support::near(map_over(t, activate, activation::gelu),
                      numbers{-0.045500264, -0.158655254, 0, 0.345731231, 2.995950306}, 2e-10));
  CHECK(support::near(map_over(t, activation_derivative, activation::gelu),
                      numbers{-0.085231801, -0.083315471, 0.5, 0.867495125, 1.011945647}, 5e-10));
  CHECK(support::near(map_over(t, activate, activation::gelu_tanh),
                      numbers{-0.045402306, -0.158808009, 0, 0.345714010, 2.996362608}, 2e-10));
  CHECK(map_over(t, activate, activation::relu) == numbers{0, 0, 0, 0.5, 3});
}

TEST_CASE("derivatives of activations agree with differences") {
  for (const activation kind : {activation::silu, activation::gelu, activation::gelu_tanh, activation::relu})
    for (double t = -4.05; t < 4; t += 0.3) {  // never on the kink of relu
      matrix x(1, 1, t);
      const auto slope = support::central_differences(x, [&] { return activate(kind, x[0]); });
      CHECK(std::fabs(slope[0] - activation_derivative(kind, t)) < 1e-10);
    }
}

TEST_CASE("RMSNorm of the known row and its gradient") {
  const matrix x(1, 4, {1, -2, 3, -4});
  const matrix w(1, 4, {1, 0.5, 2, 1});
  CHECK(support::near(rms_norm(x, w, 1e-5), numbers{0.365148128, -0.365148128, 2.190888769, -1.460592513},
                      5e-10));
  CHECK(support::near(rms_norm_backward(x, w, 1e-5, matrix(1, 4, 1.0)).dx,
                      numbers{0.340804952, 0.231260416, 0.657266728, 0.462520833}, 1e-9));
}

TEST_CASE("RMSNorm gradients agree with differences") {
  matrix x = normal(3, 7, 1), w = normal(1, 7, 2);
  const matrix dy = normal(3, 7, 3);
  const auto loss = [&] { return dot(rms_norm(x, w, 1e-3), dy); };
  const norm_gradients g = rms_norm_backward(x, w, 1e-3, dy);
  CHECK(support::near(g.dx, support::central_differences(x, loss), 1e-9));
  CHECK(support::near(g.weight, support::central_differences(w, loss), 1e-9));
}

TEST_CASE("rotary positions turn the known vector in both pairings") {
  const matrix q(1, 8, {1, 2, 3, 4, 5, 6, 7, 8});
  CHECK(support::near(rope(q, 8, {3}, {}),
                      numbers{-1.695592537, 0.137551738, 2.788681600, 3.975982036, -4.808842475, 6.323059348,
                              7.086836737, 8.011963982},
                      1e-10));
  rope_options neighbours;
  neighbours.pairs = rope_pairs::neighbours;
  CHECK(support::near(rope(q, 8, {3}, neighbours),
                      numbers{-1.272232513, -1.838864985, 1.683928641, 4.707906576, 4.817777168, 6.147277704,
                              6.975968536, 8.020963969},
                      1e-10));
  CHECK(support::near(rope(rope(q, 8, {3}, neighbours), 8, {3}, neighbours, -1), q, 1e-14));
}

TEST_CASE("rotary frequencies follow theta and the scaling of slow pairs") {
  const matrix plain = rope_frequencies(128, {});
  CHECK(std::fabs(plain[1] - 0.8659643233600653) < 1e-15);
  CHECK(std::fabs(plain[2] - 0.7498942093324559) < 1e-15);
  CHECK(std::fabs(plain[63] - 1.1547819846894582e-4) < 1e-18);
  rope_options linear_scaling;
  linear_scaling.scaling = rope_scaling::linear;
  linear_scaling.factor = 4;
  CHECK(support::near(scaled(rope_frequencies(128, linear_scaling), 4), plain, 1e-15));
  rope_options llama3;
  llama3.scaling = rope_scaling::llama3;
  llama3.theta = 500000;
  llama3.factor = 8;
  rope_options unscaled;
  unscaled.theta = 500000;
  const matrix fast = rope_frequencies(128, unscaled), blended = rope_frequencies(128, llama3);
  CHECK(blended[0] == fast[0]);
  CHECK(std::fabs(blended[63] - fast[63] / 8) < 1e-20);
  for (index_t i = 1; i < 64; ++i) {
    CHECK(blended[i] < blended[i - 1]);
    CHECK(blended[i] <= fast[i]);
    CHECK(blended[i] >= fast[i] / 8);
  }
}

TEST_CASE("gradients of a linear layer with bias and masked low-rank update agree with differences") {
  linear layer{normal(5, 7, 1), normal(1, 5, 2), {normal(3, 7, 3), normal(5, 3, 4), 0.7, {}}};
  layer.adapter.mask = matrix(4, 7, support::dropout_mask(28, 5, 0.3));
  matrix x = normal(4, 7, 6);
  const matrix dy = normal(4, 5, 7);
  const auto loss = [&] { return dot(linear_forward(layer, x), dy); };
  const linear_gradients g = linear_backward(layer, x, dy);
  CHECK(support::near(g.dx, support::central_differences(x, loss), 1e-9));
  CHECK(support::near(g.weight, support::central_differences(layer.weight, loss), 1e-9));
  CHECK(support::near(g.bias, support::central_differences(layer.bias, loss), 1e-9));
  CHECK(support::near(g.a, support::central_differences(layer.adapter.a, loss), 1e-9));
  CHECK(support::near(g.b, support::central_differences(layer.adapter.b, loss), 1e-9));
  layer.adapter.mask = {};
  linear merged{merged_weight(layer), layer.bias, {}};
  CHECK(support::near(linear_forward(merged, x), linear_forward(layer, x), 1e-14));
}

attention small_attention(bool biases) {
  attention a;
  a.heads = 4;
  a.kv_heads = 2;
  a.head_dim = 6;
  a.q.weight = normal(24, 5, 1, 0.4);
  a.k.weight = normal(12, 5, 2, 0.4);
  a.v.weight = normal(12, 5, 3, 0.4);
  a.o.weight = normal(5, 24, 4, 0.4);
  if (!biases) return a;
  a.q.bias = normal(1, 24, 5);
  a.k.bias = normal(1, 12, 6);
  a.v.bias = normal(1, 12, 7);
  a.o.bias = normal(1, 5, 8);
  return a;
}

TEST_CASE("gradients of packed grouped-query attention agree with differences in both pairings") {
  for (const bool halves : {true, false}) {
    attention a = small_attention(true);
    a.rotary.pairs = halves ? rope_pairs::halves : rope_pairs::neighbours;
    const list<index_t> positions{0, 1, 2, 0, 1, 0}, documents{0, 0, 0, 1, 1, 2};
    matrix x = normal(6, 5, 9);
    const matrix dy = normal(6, 5, 10);
    const auto loss = [&] { return dot(attention_forward(a, x, positions, documents).out, dy); };
    const attention_gradients g =
        attention_backward(a, attention_forward(a, x, positions, documents), positions, dy);
    CHECK(support::near(g.dx, support::central_differences(x, loss), 1e-9));
    CHECK(support::near(g.q.weight, support::central_differences(a.q.weight, loss), 1e-9));
    CHECK(support::near(g.k.weight, support::central_differences(a.k.weight, loss), 1e-9));
    CHECK(support::near(g.v.weight, support::central_differences(a.v.weight, loss), 1e-9));
    CHECK(support::near(g.o.weight, support::central_differences(a.o.weight, loss), 1e-9));
    CHECK(support::near(g.q.bias, support::central_differences(a.q.bias, loss), 1e-9));
    CHECK(support::near(g.v.bias, support::central_differences(a.v.bias, loss), 1e-9));
  }
}

TEST_CASE("packed documents attend as if each were alone, and padding sees nothing") {
  const attention a = small_attention(false);
  const matrix x = normal(5, 5, 11);
  const matrix packed = attention_forward(a, x, {0, 1, 0, 1, 2}, {4, 4, 9, 9, 9}).out;
  const matrix second(3, 5, numbers(x.values.begin() + 10, x.values.end()));
  const matrix alone = attention_forward(a, second, {0, 1, 2}, {0, 0, 0}).out;
  CHECK(support::near(numbers(packed.values.begin() + 10, packed.values.end()), alone, 1e-14));
  const matrix padded = attention_forward(a, x, {0, 1, 2, 0, 0}, {0, 0, 0, -1, -1}).out;
  for (index_t i = 15; i < 25; ++i) CHECK(padded[i] == 0);
}

TEST_CASE("grouped-query attention equals attention whose key and value heads are repeated") {
  const attention grouped = small_attention(false);
  attention full = grouped;
  full.kv_heads = 4;
  full.k.weight = full.v.weight = matrix(24, 5);
  for (index_t row = 0; row < 24; ++row)
    for (index_t j = 0; j < 5; ++j) {
      const index_t source = row / 6 / 2 * 6 + row % 6;
      full.k.weight(row, j) = grouped.k.weight(source, j);
      full.v.weight(row, j) = grouped.v.weight(source, j);
    }
  const matrix x = normal(4, 5, 12);
  CHECK(support::near(attention_forward(full, x, {0, 1, 2, 3}, {0, 0, 0, 0}).out,
                      attention_forward(grouped, x, {0, 1, 2, 3}, {0, 0, 0, 0}).out, 1e-14));
}

TEST_CASE("attention scores depend on the distance of positions alone") {
  const attention a = small_attention(false);
  const matrix x = normal(3, 5, 13);
  CHECK(support::near(attention_forward(a, x, {100, 101, 102}, {0, 0, 0}).out,
                      attention_forward(a, x, {0, 1, 2}, {0, 0, 0}).out, 1e-12));
}

TEST_CASE("gradients of the gated network with biases agree with differences for every activation") {
  for (const activation kind : {activation::silu, activation::gelu, activation::gelu_tanh}) {
    gated_ffn ffn;
    ffn.act = kind;
    ffn.gate = {normal(7, 5, 1), normal(1, 7, 2), {}};
    ffn.up = {normal(7, 5, 3), normal(1, 7, 4), {}};
    ffn.down = {normal(5, 7, 5), normal(1, 5, 6), {}};
    matrix x = normal(3, 5, 7);
    const matrix dy = normal(3, 5, 8);
    const auto loss = [&] { return dot(ffn_forward(ffn, x).out, dy); };
    const ffn_gradients g = ffn_backward(ffn, ffn_forward(ffn, x), dy);
    CHECK(support::near(g.dx, support::central_differences(x, loss), 1e-9));
    CHECK(support::near(g.gate.weight, support::central_differences(ffn.gate.weight, loss), 1e-9));
    CHECK(support::near(g.up.bias, support::central_differences(ffn.up.bias, loss), 1e-9));
    CHECK(support::near(g.down.weight, support::central_differences(ffn.down.weight, loss), 1e-9));
  }
}

TEST_CASE("cross entropy counts only rows with a target") {
  matrix logits = normal(4, 6, 1, 3);
  const list<index_t> targets{2, -1, 5, 0};
  const loss_result r = cross_entropy(logits, targets);
  CHECK(r.counted == 3);
  const auto loss = [&] { return cross_entropy(logits, targets).loss; };
  CHECK(support::near(r.dlogits, support::central_differences(logits, loss), 1e-9));
  CHECK(std::fabs(cross_entropy(logits, targets, 12).loss - r.loss / 4) < 1e-15);
  CHECK(std::fabs(cross_entropy(matrix(2, 8), {1, 7}).loss - std::log(8.0)) < 1e-15);
  CHECK(cross_entropy(logits, {-1, -1, -1, -1}).loss == 0);
}

}  // namespace
