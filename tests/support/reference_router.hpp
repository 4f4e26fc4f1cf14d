// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "support/reference_ops.hpp"

namespace reference {

enum class router_kind { softmax_after_top_k, softmax_before_top_k, noisy_top_k, switch_top_1 };

/// \brief What tells noisy top-k that an expert is in: its noisy logit, or (as published) its noise alone.
enum class load_indicator { noisy_logit, llama_moe };

struct router_options {
  router_kind kind = router_kind::softmax_after_top_k;
  index_t top_k = 2;
  bool renormalise = true;      ///< softmax_before_top_k: divide the kept probabilities by their sum
  index_t capacity = 0;         ///< switch_top_1: tokens an expert takes per group, 0 = any number
  index_t group = 0;            ///< switch_top_1: tokens that share a capacity, 0 = all
  double noise_epsilon = 0.01;  ///< noisy_top_k: smallest standard deviation
  load_indicator indicator = load_indicator::noisy_logit;
};

struct router_parameters {
  matrix weight;        ///< [experts, hidden]
  matrix noise_weight;  ///< [experts, hidden], noisy_top_k only
};

/// \brief One chosen expert of one token; a dropped one has gate 0 and takes no part in anything but counts.
struct assignment {
  index_t token = 0;
  index_t slot = 0;
  index_t expert = 0;
  double gate = 0;
  bool kept = true;
};

struct routing {
  router_options options;
  matrix x;
  matrix logits;                 ///< [tokens, experts], without noise
  matrix noisy_logits;           ///< what the selection saw; equals `logits` without noise
  matrix noise;                  ///< standard normal numbers [tokens, experts]; absent without noise
  matrix deviation;              ///< softplus(x NT) + epsilon; absent without noise
  matrix deviation_raw;          ///< x NT
  list<assignment> assignments;  ///< token after token, best slot first

  index_t tokens() const { return logits.rows; }
  index_t experts() const { return logits.cols; }
};

/// \brief Positions of the `k` largest of `n` values, largest first, ties to the lower position, NaN last.
inline list<index_t> top_k_of(const double* values, index_t n, index_t k) {
  const auto value = [&](index_t i) { return std::isnan(values[i]) ? -INFINITY : values[i]; };
  list<index_t> chosen;
  list<char> taken(n, 0);
  while (chosen.count() < k) {
    index_t best = -1;
    for (index_t i = 0; i < n; ++i)
      if (!taken[i] && (best < 0 || value(i) > value(best))) best = i;
    taken[best] = 1;
    chosen.push_back(best);
  }
  return chosen;
}

/// \brief Softmax of a row; NaN counts as minus infinity, and a row without any finite value is uniform.
inline matrix softmax_row(const double* values, index_t n) {
  double largest = -INFINITY;
  for (index_t i = 0; i < n; ++i)
    if (values[i] > largest) largest = values[i];
  if (largest == -INFINITY) return matrix(1, n, 1 / static_cast<double>(n));
  matrix p(1, n);
  double sum = 0;
  for (index_t i = 0; i < n; ++i) sum += p[i] = std::isnan(values[i]) ? 0 : std::exp(values[i] - largest);
  for (double& value : p.values) value /= sum;
  return p;
}

/// \brief log(sum(exp(values))).
inline double log_sum_exp(const double* values, index_t n) {
  double largest = -INFINITY;
  for (index_t i = 0; i < n; ++i) largest = std::max(largest, values[i]);
  double sum = 0;
  for (index_t i = 0; i < n; ++i) sum += std::exp(values[i] - largest);
  return largest + std::log(sum);
}

inline matrix softmax_rows(const matrix& logits) {
  matrix p(logits.rows, logits.cols);
  for (index_t i = 0; i < logits.rows; ++i) {
    const matrix row = softmax_row(logits.data() + i * logits.cols, logits.cols);
    for (index_t j = 0; j < logits.cols; ++j) p(i, j) = row[j];
  }
  return p;
}

/// \brief Tokens per expert at `factor` times perfect balance, rounded up.
inline index_t expert_capacity(index_t tokens, index_t experts, index_t top_k, double factor) {
  return static_cast<index_t>(
      std::ceil(factor * static_cast<double>(top_k * tokens) / static_cast<double>(experts)));
}

/// \brief Gates of the chosen experts of one row.
inline matrix gates_of(const router_options& options, const double* logits, index_t experts,
                       const list<index_t>& chosen) {
  matrix gates(1, chosen.count());
  const bool before =
      options.kind == router_kind::softmax_before_top_k || options.kind == router_kind::switch_top_1;
  if (!before) {
    list<double> kept;
    for (const index_t e : chosen) kept.push_back(logits[e]);
    return softmax_row(kept.data(), kept.count());
  }
  const matrix p = softmax_row(logits, experts);
  double sum = 0;
  for (index_t j = 0; j < chosen.count(); ++j) sum += gates[j] = p[chosen[j]];
  const bool renormalise = options.renormalise && options.kind == router_kind::softmax_before_top_k;
  return renormalise ? scaled(gates, 1 / sum) : gates;
}

inline void drop_over_capacity(routing& r) {
  const index_t group = r.options.group > 0 ? r.options.group : std::max<index_t>(r.tokens(), 1);
  list<index_t> taken(r.experts(), 0);
  for (assignment& a : r.assignments) {
    if (a.token % group == 0) taken = list<index_t>(r.experts(), 0);
    if (++taken[a.expert] <= r.options.capacity) continue;
    a.kept = false;
    a.gate = 0;
  }
}

/// \brief Chooses experts for given logits; `noise` and `deviation_raw` only for a noisy router in training.
inline routing route_logits(const router_options& options, const matrix& logits, const matrix& noise = {},
                            const matrix& deviation_raw = {}) {
  require(options.top_k <= logits.cols, "route: more slots than experts");
  routing r;
  r.options = options;
  r.logits = logits;
  r.noisy_logits = logits;
  if (!noise.empty()) {
    r.noise = noise;
    r.deviation_raw = deviation_raw;
    r.deviation = deviation_raw;
    for (double& value : r.deviation.values) value = std::log1p(std::exp(value)) + options.noise_epsilon;
    add_to(r.noisy_logits, masked(noise, r.deviation));
  }
  for (index_t token = 0; token < logits.rows; ++token) {
    const double* row = r.noisy_logits.data() + token * logits.cols;
    const list<index_t> chosen = top_k_of(row, logits.cols, options.top_k);
    const matrix gates = gates_of(options, row, logits.cols, chosen);
    for (index_t slot = 0; slot < options.top_k; ++slot)
      r.assignments.push_back({token, slot, chosen[slot], gates[slot], true});
  }
  if (options.kind == router_kind::switch_top_1 && options.capacity > 0) drop_over_capacity(r);
  return r;
}

inline routing route(const router_options& options, const router_parameters& p, const matrix& x,
                     const matrix& noise = {}) {
  const bool noisy = options.kind == router_kind::noisy_top_k && !noise.empty();
  const matrix raw = noisy ? product_transposed(x, p.noise_weight) : matrix{};
  routing r = route_logits(options, product_transposed(x, p.weight), noisy ? noise : matrix{}, raw);
  r.x = x;
  return r;
}

/// \brief Gradients of the logits and, for a noisy router, of x NT.
struct logit_gradients {
  matrix logits;
  matrix deviation_raw;
};

/// \brief Adds what a gradient of the noisy logits and of the deviations means for their inputs.
inline void noise_backward(const routing& r, const matrix& dnoisy, const matrix& ddeviation,
                           logit_gradients& g) {
  add_to(g.logits, dnoisy);
  if (r.noise.empty()) return;
  matrix d = masked(dnoisy, r.noise);
  add_to(d, ddeviation);
  for (index_t i = 0; i < d.count(); ++i) d[i] *= sigmoid(r.deviation_raw[i]);  // derivative of softplus
  add_to(g.deviation_raw, d);
}

/// \brief Gradient of the gates, one number per assignment, taken back to the logits.
inline logit_gradients gates_backward(const routing& r, const list<double>& dgates) {
  require(dgates.count() == r.assignments.count(), "gates_backward: one gradient per assignment");
  const router_options& options = r.options;
  const bool before =
      options.kind == router_kind::softmax_before_top_k || options.kind == router_kind::switch_top_1;
  const bool renormalise = options.renormalise && options.kind == router_kind::softmax_before_top_k;
  matrix d(r.logits.rows, r.logits.cols);
  for (index_t token = 0; token < r.tokens(); ++token) {
    const index_t first = token * options.top_k;
    double mean = 0;
    for (index_t j = 0; j < options.top_k; ++j) mean += r.assignments[first + j].gate * dgates[first + j];
    if (!before) {
      for (index_t j = 0; j < options.top_k; ++j) {
        const assignment& a = r.assignments[first + j];
        d(token, a.expert) += a.gate * (dgates[first + j] - mean);
      }
      continue;
    }
    const matrix p = softmax_row(r.logits.data() + token * r.experts(), r.experts());
    double sum = 0;
    for (index_t j = 0; j < options.top_k; ++j) sum += p[r.assignments[first + j].expert];
    matrix dp(1, r.experts());
    for (index_t j = 0; j < options.top_k; ++j) {
      const assignment& a = r.assignments[first + j];
      if (a.kept) dp[a.expert] = renormalise ? (dgates[first + j] - mean) / sum : dgates[first + j];
    }
    double dot = 0;
    for (index_t e = 0; e < r.experts(); ++e) dot += p[e] * dp[e];
    for (index_t e = 0; e < r.experts(); ++e) d(token, e) += p[e] * (dp[e] - dot);
  }
  logit_gradients g;
  noise_backward(r, d, {}, g);
  return g;
}

struct router_gradients {
  matrix dx;
  matrix weight;
  matrix noise_weight;
};

inline router_gradients router_backward(const router_parameters& p, const routing& r,
                                        const logit_gradients& d) {
  router_gradients g;
  g.dx = product(d.logits, p.weight);
  g.weight = transposed_product(d.logits, r.x);
  if (!p.noise_weight.empty()) g.noise_weight = matrix(p.noise_weight.rows, p.noise_weight.cols);
  if (d.deviation_raw.empty()) return g;
  add_to(g.dx, product(d.deviation_raw, p.noise_weight));
  add_to(g.noise_weight, transposed_product(d.deviation_raw, r.x));
  return g;
}

}  // namespace reference
