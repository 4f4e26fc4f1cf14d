// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <numbers>

#include "support/reference_ops.hpp"

namespace reference {

/// \brief Which elements of a head turn together: (i, i + dim/2) or (2i, 2i + 1).
enum class rope_pairs { halves, neighbours };

enum class rope_scaling { none, linear, llama3 };

struct rope_options {
  double theta = 10000;
  rope_pairs pairs = rope_pairs::halves;
  rope_scaling scaling = rope_scaling::none;
  double factor = 1;
  double low_frequency_factor = 1;   ///< llama3 only
  double high_frequency_factor = 4;  ///< llama3 only
  double original_positions = 8192;  ///< llama3 only
};

/// \brief Radians per position of each pair, scaling included.
inline matrix rope_frequencies(index_t head_dim, const rope_options& options) {
  matrix result(1, head_dim / 2);
  for (index_t i = 0; i < head_dim / 2; ++i) {
    const double plain =
        std::pow(options.theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
    result[i] = plain;
    if (options.scaling == rope_scaling::linear) result[i] = plain / options.factor;
    if (options.scaling != rope_scaling::llama3) continue;
    // Fast pairs stay, slow pairs are slowed down, those between are blended.
    const double turns = options.original_positions * plain / (2 * std::numbers::pi);
    if (turns > options.high_frequency_factor) continue;
    const double blend = (turns - options.low_frequency_factor) /
                         (options.high_frequency_factor - options.low_frequency_factor);
    if (turns < options.low_frequency_factor)
      result[i] = plain / options.factor;
    else
      result[i] = (1 - blend) * plain / options.factor + blend * plain;
  }
  return result;
}

/// \brief Turns every head of `x` [tokens, heads * head_dim]; `direction` -1, the backward pass, turns back.
inline matrix rope(const matrix& x, index_t head_dim, const list<index_t>& positions,
                   const rope_options& options, double direction = 1) {
  const matrix frequencies = rope_frequencies(head_dim, options);
  matrix y = x;
  for (index_t t = 0; t < x.rows; ++t)
    for (index_t head = 0; head < x.cols / head_dim; ++head)
      for (index_t i = 0; i < head_dim / 2; ++i) {
        const bool halves = options.pairs == rope_pairs::halves;
        const index_t first = head * head_dim + (halves ? i : 2 * i);
        const index_t second = first + (halves ? head_dim / 2 : 1);
        const double angle = direction * static_cast<double>(positions[t]) * frequencies[i];
        y(t, first) = x(t, first) * std::cos(angle) - x(t, second) * std::sin(angle);
        y(t, second) = x(t, second) * std::cos(angle) + x(t, first) * std::sin(angle);
      }
  return y;
}

/// \brief Causal attention with grouped key-value heads and rotary positions.
struct attention {
  linear q;  ///< [heads * head_dim, hidden]
  linear k;  ///< [kv_heads * head_dim, hidden]
  linear v;  ///< [kv_heads * head_dim, hidden]
  linear o;  ///< [hidden, heads * head_dim]
  index_t heads = 1;
  index_t kv_heads = 1;
  index_t head_dim = 2;
  rope_options rotary;
};

struct attention_state {
  matrix x;
  matrix q, k, v;              ///< q and k after the rotation
  list<matrix> probabilities;  ///< per query head, [tokens, tokens]
  matrix context;              ///< heads side by side, before `o`
  matrix out;
};

struct attention_gradients {
  matrix dx;
  linear_gradients q, k, v, o;
};

/// \brief Whether row `t` sees row `s`: none later, and of the same document; a negative document is padding.
inline bool sees(const list<index_t>& documents, index_t t, index_t s) {
  return s <= t && documents[s] >= 0 && documents[s] == documents[t];
}

/// \brief softmax(q kT / sqrt(head_dim)) of one head over the rows it sees; a row that sees nothing is zero.
inline matrix attention_probabilities(const attention& layer, const attention_state& s, index_t head,
                                      const list<index_t>& documents) {
  const index_t tokens = s.q.rows;
  const index_t dim = layer.head_dim;
  const index_t kv_head = head / (layer.heads / layer.kv_heads);
  matrix p(tokens, tokens);
  for (index_t t = 0; t < tokens; ++t) {
    double sum = 0;
    double largest = -INFINITY;
    for (index_t u = 0; u <= t; ++u) {
      if (!sees(documents, t, u)) continue;
      for (index_t i = 0; i < dim; ++i) p(t, u) += s.q(t, head * dim + i) * s.k(u, kv_head * dim + i);
      p(t, u) /= std::sqrt(static_cast<double>(dim));
      largest = std::max(largest, p(t, u));
    }
    for (index_t u = 0; u <= t; ++u)
      if (sees(documents, t, u)) sum += p(t, u) = std::exp(p(t, u) - largest);
    for (index_t u = 0; u <= t; ++u)
      if (sees(documents, t, u)) p(t, u) /= sum;
  }
  return p;
}

/// \brief `positions` are the angles of RoPE, `documents` the ids that separate packed sequences.
inline attention_state attention_forward(const attention& layer, const matrix& x,
                                         const list<index_t>& positions, const list<index_t>& documents) {
  const index_t dim = layer.head_dim;
  attention_state s;
  s.x = x;
  s.q = rope(linear_forward(layer.q, x), dim, positions, layer.rotary);
  s.k = rope(linear_forward(layer.k, x), dim, positions, layer.rotary);
  s.v = linear_forward(layer.v, x);
  s.context = matrix(x.rows, layer.heads * dim);
  for (index_t head = 0; head < layer.heads; ++head) {
    const index_t kv_head = head / (layer.heads / layer.kv_heads);
    s.probabilities.push_back(attention_probabilities(layer, s, head, documents));
    const matrix& p = s.probabilities.back();
    for (index_t t = 0; t < x.rows; ++t)
      for (index_t u = 0; u <= t; ++u)
        for (index_t i = 0; i < dim; ++i) s.context(t, head * dim + i) += p(t, u) * s.v(u, kv_head * dim + i);
  }
  s.out = linear_forward(layer.o, s.context);
  return s;
}

inline attention_gradients attention_backward(const attention& layer, const attention_state& s,
                                              const list<index_t>& positions, const matrix& dy) {
  const index_t tokens = s.q.rows;
  const index_t dim = layer.head_dim;
  const double scale = 1 / std::sqrt(static_cast<double>(dim));
  attention_gradients g;
  g.o = linear_backward(layer.o, s.context, dy);
  const matrix& dcontext = g.o.dx;
  matrix dq(s.q.rows, s.q.cols), dk(s.k.rows, s.k.cols), dv(s.v.rows, s.v.cols);
  for (index_t head = 0; head < layer.heads; ++head) {
    const index_t query = head * dim;
    const index_t key = head / (layer.heads / layer.kv_heads) * dim;
    const matrix& p = s.probabilities[head];
    for (index_t t = 0; t < tokens; ++t) {
      matrix dp(1, tokens);
      double mean = 0;
      for (index_t u = 0; u <= t; ++u) {
        for (index_t i = 0; i < dim; ++i) {
          dp[u] += dcontext(t, query + i) * s.v(u, key + i);
          dv(u, key + i) += p(t, u) * dcontext(t, query + i);
        }
        mean += p(t, u) * dp[u];
      }
      for (index_t u = 0; u <= t; ++u) {
        const double dscore = p(t, u) * (dp[u] - mean) * scale;
        for (index_t i = 0; i < dim; ++i) {
          dq(t, query + i) += dscore * s.k(u, key + i);
          dk(u, key + i) += dscore * s.q(t, query + i);
        }
      }
    }
  }
  g.q = linear_backward(layer.q, s.x, rope(dq, dim, positions, layer.rotary, -1));
  g.k = linear_backward(layer.k, s.x, rope(dk, dim, positions, layer.rotary, -1));
  g.v = linear_backward(layer.v, s.x, dv);
  for (const linear_gradients* part : {&g.q, &g.k, &g.v}) add_to(g.dx, part->dx);
  return g;
}

}  // namespace reference
