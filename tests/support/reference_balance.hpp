// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "support/reference_router.hpp"

namespace reference {

/// \brief Which rows count in the auxiliary losses; empty = all. The same for every layer.
using row_mask = list<char>;

inline bool counts(const row_mask& mask, index_t row) { return mask.empty() || mask[row] != 0; }

/// \brief A loss over the logits of several layers and its gradient for each of them.
struct pooled_loss {
  double loss = 0;
  index_t rows = 0;      ///< counted rows of all layers
  matrix fractions;      ///< balance loss: choices per expert over rows, [1, experts]
  matrix probabilities;  ///< balance loss: mean probability per expert, [1, experts]
  list<matrix> dlogits;
};

/// \brief E sum_e f_e P_e with f and P pooled over the layers before the product; `per_slot` divides by k.
///
/// Choices count before any are dropped for capacity; f is a constant for the gradient.
inline pooled_loss balance_loss(const list<routing>& layers, bool per_slot = false,
                                const row_mask& mask = {}) {
  const index_t experts = layers[0].experts();
  pooled_loss result{0, 0, matrix(1, experts), matrix(1, experts), {}};
  for (const routing& r : layers) {
    const matrix p = softmax_rows(r.logits);
    for (index_t n = 0; n < r.tokens(); ++n) {
      if (!counts(mask, n)) continue;
      ++result.rows;
      for (index_t e = 0; e < experts; ++e) result.probabilities[e] += p(n, e);
    }
    for (const assignment& a : r.assignments)
      if (counts(mask, a.token)) result.fractions[a.expert] += 1;
  }
  for (const routing& r : layers) result.dlogits.push_back(matrix(r.tokens(), experts));
  if (result.rows == 0) return result;

  const double rows = static_cast<double>(result.rows);
  const double factor =
      static_cast<double>(experts) / (per_slot ? static_cast<double>(layers[0].options.top_k) : 1);
  for (index_t e = 0; e < experts; ++e) {
    result.fractions[e] /= rows;
    result.probabilities[e] /= rows;
    result.loss += factor * result.fractions[e] * result.probabilities[e];
  }
  for (index_t layer = 0; layer < layers.count(); ++layer) {
    const matrix p = softmax_rows(layers[layer].logits);
    for (index_t n = 0; n < p.rows; ++n) {
      if (!counts(mask, n)) continue;
      double mean = 0;
      for (index_t e = 0; e < experts; ++e) mean += result.fractions[e] * p(n, e);
      for (index_t e = 0; e < experts; ++e)
        result.dlogits[layer](n, e) = factor / rows * p(n, e) * (result.fractions[e] - mean);
    }
  }
  return result;
}

/// \brief Mean of the squared log-sum-exp of the logits over the counted rows of all layers.
inline pooled_loss z_loss(const list<routing>& layers, const row_mask& mask = {}) {
  pooled_loss result;
  for (const routing& r : layers)
    for (index_t n = 0; n < r.tokens(); ++n) result.rows += counts(mask, n);
  const double rows = static_cast<double>(std::max<index_t>(result.rows, 1));
  for (const routing& r : layers) {
    const matrix p = softmax_rows(r.logits);
    matrix d(r.tokens(), r.experts());
    for (index_t n = 0; n < r.tokens(); ++n) {
      if (!counts(mask, n)) continue;
      const double log_sum = log_sum_exp(r.logits.data() + n * r.experts(), r.experts());
      result.loss += log_sum * log_sum / rows;
      for (index_t e = 0; e < r.experts(); ++e) d(n, e) = 2 / rows * log_sum * p(n, e);
    }
    result.dlogits.push_back(d);
  }
  return result;
}

/// \brief The published auxiliary loss of Camelidae, step by step: always experts / top_k, without gradient.
inline double camelidae_constant(const list<routing>& layers) {
  const index_t experts = layers[0].experts();
  const index_t top_k = layers[0].options.top_k;
  double sum = 0;
  double terms = 0;
  for (const routing& r : layers)
    for (index_t n = 0; n < r.tokens(); ++n) {
      const double* row = r.logits.data() + n * experts;
      const list<index_t> chosen = top_k_of(row, experts, top_k);
      list<double> kept;
      for (const index_t e : chosen) kept.push_back(row[e]);
      const matrix weights = softmax_row(kept.data(), top_k);
      double mean_weight = 0;
      for (index_t j = 0; j < top_k; ++j) mean_weight += weights[j] / static_cast<double>(top_k);
      for (index_t e = 0; e < experts; ++e) {
        double share = 0;
        for (const index_t choice : chosen) share += (choice == e ? 1 : 0) / static_cast<double>(top_k);
        sum += share * mean_weight;
        terms += 1;
      }
    }
  return sum / terms * static_cast<double>(experts * experts);
}

struct variation {
  double value = 0;
  matrix derivative;
};

/// \brief Squared coefficient of variation with the unbiased variance; 0 for a single number.
inline variation cv_squared(const matrix& v) {
  variation result{0, matrix(1, v.count())};
  if (v.count() == 1) return result;
  const double n = static_cast<double>(v.count());
  double mean = 0;
  for (const double value : v.values) mean += value / n;
  double variance = 0;
  for (const double value : v.values) variance += (value - mean) * (value - mean) / (n - 1);
  const double square = mean * mean + 1e-10;
  result.value = variance / square;
  for (index_t e = 0; e < v.count(); ++e)
    result.derivative[e] =
        2 * (v[e] - mean) / ((n - 1) * square) - 2 * mean * variance / (n * square * square);
  return result;
}

/// \brief Loss of noisy top-k: weight * (CV^2 of the importance + CV^2 of the load).
struct noisy_loss {
  double loss = 0;
  matrix importance;  ///< sum of gates per expert
  matrix load;        ///< expected (or, without noise, actual) number of tokens per expert
  logit_gradients gradient;
};

/// \brief The two thresholds of one row: the expert in slot k and the first that was left out.
struct load_thresholds {
  index_t last_in = 0;
  index_t first_out = 0;
};

inline load_thresholds thresholds_of(const routing& r, index_t token) {
  const index_t k = r.options.top_k;
  const list<index_t> order = top_k_of(r.noisy_logits.data() + token * r.experts(), r.experts(), k + 1);
  return {order[k - 1], order[k]};
}

/// \brief The expert whose noisy logit `expert` has to beat: the first one out if it is in, else the last in.
inline index_t threshold_expert(const routing& r, index_t token, index_t expert) {
  const load_thresholds t = thresholds_of(r, token);
  const bool published = r.options.indicator == load_indicator::llama_moe;
  const double tested =
      published ? r.noise(token, expert) * r.deviation(token, expert) : r.noisy_logits(token, expert);
  return tested > r.noisy_logits(token, t.first_out) ? t.first_out : t.last_in;
}

inline bool has_smooth_load(const routing& r) { return !r.noise.empty() && r.options.top_k < r.experts(); }

/// \brief Probability that an expert is chosen when its noise is drawn anew, summed over the tokens.
inline matrix noisy_load(const routing& r) {
  matrix load(1, r.experts());
  if (!has_smooth_load(r)) {
    for (const assignment& a : r.assignments) load[a.expert] += a.gate > 0 ? 1 : 0;
    return load;
  }
  for (index_t n = 0; n < r.tokens(); ++n)
    for (index_t e = 0; e < r.experts(); ++e) {
      const double threshold = r.noisy_logits(n, threshold_expert(r, n, e));
      load[e] += normal_cdf((r.logits(n, e) - threshold) / r.deviation(n, e));
    }
  return load;
}

inline void noisy_load_backward(const routing& r, const matrix& dload, logit_gradients& g) {
  if (!has_smooth_load(r)) return;
  matrix dclean(r.tokens(), r.experts()), dnoisy = dclean, ddeviation = dclean;
  for (index_t n = 0; n < r.tokens(); ++n)
    for (index_t e = 0; e < r.experts(); ++e) {
      const index_t other = threshold_expert(r, n, e);
      const double deviation = r.deviation(n, e);
      const double t = (r.logits(n, e) - r.noisy_logits(n, other)) / deviation;
      const double slope = dload[e] * normal_pdf(t) / deviation;
      dclean(n, e) += slope;
      ddeviation(n, e) -= slope * t;
      dnoisy(n, other) -= slope;
    }
  add_to(g.logits, dclean);
  noise_backward(r, dnoisy, ddeviation, g);
}

inline noisy_loss noisy_balance_loss(const routing& r, double weight) {
  noisy_loss result;
  result.importance = matrix(1, r.experts());
  for (const assignment& a : r.assignments) result.importance[a.expert] += a.gate;
  result.load = noisy_load(r);
  const variation importance = cv_squared(result.importance);
  const variation load = cv_squared(result.load);
  result.loss = weight * (importance.value + load.value);

  list<double> dgates;
  for (const assignment& a : r.assignments) dgates.push_back(weight * importance.derivative[a.expert]);
  result.gradient = gates_backward(r, dgates);
  noisy_load_backward(r, scaled(load.derivative, weight), result.gradient);
  return result;
}

}  // namespace reference
