// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <numbers>

#include "support/reference_matrix.hpp"

namespace reference {

enum class activation { silu, gelu, gelu_tanh, relu };

/// \brief Distribution function of the standard normal.
inline double normal_cdf(double t) { return 0.5 * std::erfc(-t / std::numbers::sqrt2); }

/// \brief Density of the standard normal.
inline double normal_pdf(double t) { return std::exp(-0.5 * t * t) / std::sqrt(2 * std::numbers::pi); }

inline double sigmoid(double t) { return 1 / (1 + std::exp(-t)); }

/// \brief `gelu` is the exact form t Phi(t), `gelu_tanh` the approximation by tanh.
inline double activate(activation kind, double t) {
  switch (kind) {
    case activation::silu:
      return t * sigmoid(t);
    case activation::gelu:
      return t * normal_cdf(t);
    case activation::gelu_tanh: {
      const double inner = std::sqrt(2 / std::numbers::pi) * (t + 0.044715 * t * t * t);
      return 0.5 * t * (1 + std::tanh(inner));
    }
    case activation::relu:
      return t > 0 ? t : 0;
  }
  return 0;
}

inline double activation_derivative(activation kind, double t) {
  switch (kind) {
    case activation::silu:
      return sigmoid(t) * (1 + t * (1 - sigmoid(t)));
    case activation::gelu:
      return normal_cdf(t) + t * normal_pdf(t);
    case activation::gelu_tanh: {
      const double c = std::sqrt(2 / std::numbers::pi);
      const double h = std::tanh(c * (t + 0.044715 * t * t * t));
      return 0.5 * (1 + h) + 0.5 * t * (1 - h * h) * c * (1 + 3 * 0.044715 * t * t);
    }
    case activation::relu:
      return t > 0 ? 1 : 0;
  }
  return 0;
}

/// \brief Low-rank update of a linear layer: scale * B A (mask (.) x), absent when `a` has no elements.
struct lora {
  matrix a;          ///< [rank, in]
  matrix b;          ///< [out, rank]
  double scale = 1;  ///< alpha / rank
  matrix mask;       ///< [tokens, in], entries 0 or 1/(1-p); absent when nothing is dropped
};

/// \brief y = x WT + bias + low-rank update; `bias` and `adapter` may be absent.
struct linear {
  matrix weight;  ///< [out, in]
  matrix bias;    ///< [1, out]
  lora adapter;
};

struct linear_gradients {
  matrix dx;
  matrix weight;
  matrix bias;
  matrix a;
  matrix b;
};

inline matrix linear_forward(const linear& layer, const matrix& x) {
  matrix y = product_transposed(x, layer.weight);
  if (!layer.bias.empty())
    for (index_t i = 0; i < y.rows; ++i)
      for (index_t j = 0; j < y.cols; ++j) y(i, j) += layer.bias[j];
  const lora& adapter = layer.adapter;
  if (!adapter.a.empty())
    add_to(y, product_transposed(product_transposed(masked(x, adapter.mask), adapter.a), adapter.b),
           adapter.scale);
  return y;
}

inline linear_gradients linear_backward(const linear& layer, const matrix& x, const matrix& dy) {
  linear_gradients g;
  g.dx = product(dy, layer.weight);
  g.weight = transposed_product(dy, x);
  if (!layer.bias.empty()) g.bias = column_sums(dy);
  const lora& adapter = layer.adapter;
  if (!adapter.a.empty()) {
    const matrix dropped = masked(x, adapter.mask);
    const matrix narrow = product_transposed(dropped, adapter.a);          // [tokens, rank]
    const matrix dnarrow = scaled(product(dy, adapter.b), adapter.scale);  // [tokens, rank]
    g.b = scaled(transposed_product(dy, narrow), adapter.scale);
    g.a = transposed_product(dnarrow, dropped);
    add_to(g.dx, masked(product(dnarrow, adapter.a), adapter.mask));
  }
  return g;
}

/// \brief The weight that has the low-rank update built in.
inline matrix merged_weight(const linear& layer) {
  matrix w = layer.weight;
  if (!layer.adapter.a.empty()) add_to(w, product(layer.adapter.b, layer.adapter.a), layer.adapter.scale);
  return w;
}

struct norm_gradients {
  matrix dx;
  matrix weight;  ///< [1, hidden]
};

/// \brief y = w (.) x / sqrt(mean(x^2) + eps), row by row.
inline matrix rms_norm(const matrix& x, const matrix& weight, double eps) {
  matrix y(x.rows, x.cols);
  for (index_t i = 0; i < x.rows; ++i) {
    double squares = 0;
    for (index_t j = 0; j < x.cols; ++j) squares += x(i, j) * x(i, j);
    const double r = 1 / std::sqrt(squares / static_cast<double>(x.cols) + eps);
    for (index_t j = 0; j < x.cols; ++j) y(i, j) = weight[j] * x(i, j) * r;
  }
  return y;
}

inline norm_gradients rms_norm_backward(const matrix& x, const matrix& weight, double eps, const matrix& dy) {
  norm_gradients g{matrix(x.rows, x.cols), matrix(1, x.cols)};
  const double hidden = static_cast<double>(x.cols);
  for (index_t i = 0; i < x.rows; ++i) {
    double squares = 0;
    double along = 0;  // sum of w (.) dy (.) x
    for (index_t j = 0; j < x.cols; ++j) {
      squares += x(i, j) * x(i, j);
      along += weight[j] * dy(i, j) * x(i, j);
    }
    const double r = 1 / std::sqrt(squares / hidden + eps);
    for (index_t j = 0; j < x.cols; ++j) {
      g.dx(i, j) = r * weight[j] * dy(i, j) - x(i, j) * r * r * r / hidden * along;
      g.weight[j] += dy(i, j) * x(i, j) * r;
    }
  }
  return g;
}

/// \brief Gated feed-forward network: down(act(gate(x)) (.) up(x)).
struct gated_ffn {
  linear gate;  ///< [intermediate, hidden]
  linear up;    ///< [intermediate, hidden]
  linear down;  ///< [hidden, intermediate]
  activation act = activation::silu;
};

struct ffn_state {
  matrix x;
  matrix gate;  ///< before the activation
  matrix up;
  matrix middle;  ///< act(gate) (.) up
  matrix out;
};

struct ffn_gradients {
  matrix dx;
  linear_gradients gate;
  linear_gradients up;
  linear_gradients down;
};

inline ffn_state ffn_forward(const gated_ffn& ffn, const matrix& x) {
  ffn_state s;
  s.x = x;
  s.gate = linear_forward(ffn.gate, x);
  s.up = linear_forward(ffn.up, x);
  s.middle = s.up;
  for (index_t i = 0; i < s.middle.count(); ++i) s.middle[i] *= activate(ffn.act, s.gate[i]);
  s.out = linear_forward(ffn.down, s.middle);
  return s;
}

inline ffn_gradients ffn_backward(const gated_ffn& ffn, const ffn_state& s, const matrix& dy) {
  ffn_gradients g;
  g.down = linear_backward(ffn.down, s.middle, dy);
  matrix dgate = g.down.dx;
  matrix dup = g.down.dx;
  for (index_t i = 0; i < dgate.count(); ++i) {
    dgate[i] *= s.up[i] * activation_derivative(ffn.act, s.gate[i]);
    dup[i] *= activate(ffn.act, s.gate[i]);
  }
  g.gate = linear_backward(ffn.gate, s.x, dgate);
  g.up = linear_backward(ffn.up, s.x, dup);
  add_to(g.dx, g.gate.dx);
  add_to(g.dx, g.up.dx);
  return g;
}

struct loss_result {
  double loss = 0;
  index_t counted = 0;
  matrix dlogits;
};

/// \brief Sum of -log softmax(logits)[target] over rows with a target >= 0, divided by `normaliser`.
///
/// A normaliser of 0 stands for the number of counted rows; without any, loss and gradient are zero.
inline loss_result cross_entropy(const matrix& logits, const list<index_t>& targets, double normaliser = 0) {
  require(targets.count() == logits.rows, "cross_entropy: one target per row");
  loss_result result{0, 0, matrix(logits.rows, logits.cols)};
  for (const index_t target : targets) result.counted += target >= 0;
  if (result.counted == 0) return result;
  if (normaliser == 0) normaliser = static_cast<double>(result.counted);
  for (index_t i = 0; i < logits.rows; ++i) {
    if (targets[i] < 0) continue;
    double largest = logits(i, 0);
    for (index_t j = 1; j < logits.cols; ++j) largest = std::max(largest, logits(i, j));
    double sum = 0;
    for (index_t j = 0; j < logits.cols; ++j) sum += std::exp(logits(i, j) - largest);
    const double log_sum = largest + std::log(sum);
    result.loss += (log_sum - logits(i, targets[i])) / normaliser;
    for (index_t j = 0; j < logits.cols; ++j)
      result.dlogits(i, j) = (std::exp(logits(i, j) - log_sum) - (j == targets[i] ? 1 : 0)) / normaliser;
  }
  return result;
}

}  // namespace reference
