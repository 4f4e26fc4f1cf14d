// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>

#include "pesc/core/random.hpp"
#include "pesc/core/views.hpp"
#include "pesc/core/workspace.hpp"
#include "pesc/cpu/context.hpp"
#include "pesc/cpu/elementwise.hpp"
#include "pesc/cpu/reduce.hpp"
#include "pesc/moe/routing_types.hpp"

// Noisy top-k gating: Shazeer et al., "Outrageously large neural networks" (2017). With noise n ~ N(0, 1),
// noisy = clean + n * sigma, sigma = softplus(raw) + epsilon, the k largest noisy logits choose, and the load
// of an expert is the probability, over a new draw of its own noise, that it is among them, summed over rows.

namespace pesc::cpu {
inline namespace PESC_CPU_ABI {
namespace detail {

inline float softplus(float x) { return std::max(x, 0.0f) + std::log1p(std::exp(-std::fabs(x))); }

inline float sigmoid(float x) { return 1.0f / (1.0f + std::exp(-x)); }

/// \brief Two normal numbers from two words (Box and Muller, 1958).
inline void normal_pair(std::uint32_t first, std::uint32_t second, float* out) {
  // 1 - u is in (0, 1], so that the logarithm is finite.
  const float radius = std::sqrt(-2.0f * std::log(1.0f - to_unit(first)));
  const float angle = 6.2831853071795865f * to_unit(second);
  out[0] = radius * std::cos(angle);
  out[1] = radius * std::sin(angle);
}

}  // namespace detail

/// \brief y(i, j) = a normal number that depends on the stream, i and j alone.
template <Executor E, IsaPolicy I>
void fill_normal(context<E, I>& ctx, const random_stream& s, matrix_view<float> y) {
  detail::for_rows(ctx, y.rows, 16 * y.cols, [&](index_t i) {
    for (index_t j = 0; j < y.cols; j += 4) {
      const auto words = s.words(static_cast<std::uint32_t>(i), static_cast<std::uint32_t>(j / 4));
      float numbers[4];
      detail::normal_pair(words[0], words[1], numbers);
      detail::normal_pair(words[2], words[3], numbers + 2);
      std::copy_n(numbers, std::min<index_t>(4, y.cols - j), y.row(i) + j);
    }
  });
}

/// \brief noisy = clean + noise * (softplus(raw) + epsilon).
template <Executor E, IsaPolicy I>
void noisy_logits(context<E, I>& ctx, matrix_view<const float> clean, matrix_view<const float> raw,
                  matrix_view<const float> noise, float epsilon, matrix_view<float> noisy) {
  detail::for_rows(ctx, clean.rows, 8 * clean.cols, [&](index_t t) {
    for (index_t e = 0; e < clean.cols; ++e)
      noisy(t, e) = clean(t, e) + noise(t, e) * (detail::softplus(raw(t, e)) + epsilon);
  });
}

/// \brief dclean += dnoisy; draw += dnoisy * noise * sigmoid(raw).
template <Executor E, IsaPolicy I>
void noisy_logits_backward(context<E, I>& ctx, matrix_view<const float> raw, matrix_view<const float> noise,
                           matrix_view<const float> dnoisy, matrix_view<float> dclean,
                           matrix_view<float> draw) {
  detail::for_rows(ctx, raw.rows, 8 * raw.cols, [&](index_t t) {
    for (index_t e = 0; e < raw.cols; ++e) {
      dclean(t, e) += dnoisy(t, e);
      draw(t, e) += dnoisy(t, e) * noise(t, e) * detail::sigmoid(raw(t, e));
    }
  });
}

namespace detail {

/// \brief Terms of the load of one expert for one row.
struct load_term {
  float sigma;
  float z;                 ///< (clean - threshold) / sigma
  std::int32_t threshold;  ///< expert whose noisy logit is the threshold
};

/// \param best  the k + 1 best experts of the row
inline load_term load_of(const noisy_load_inputs<>& in, index_t t, index_t e, const std::int32_t* best) {
  const float sigma = softplus(in.raw(t, e)) + in.epsilon;
  const float tested = in.indicator == load_indicator::llama_moe ? in.noise(t, e) * sigma : in.noisy(t, e);
  const std::int32_t threshold = tested > in.noisy(t, best[in.k]) ? best[in.k] : best[in.k - 1];
  return {sigma, (in.clean(t, e) - in.noisy(t, threshold)) / sigma, threshold};
}

}  // namespace detail

/// \brief load[e] += estimated number of rows that choose expert e.
template <Executor E, IsaPolicy I>
void noisy_load(context<E, I>& ctx, const noisy_load_inputs<>& in, vector_view<double> load,
                workspace<>& ws) {
  const index_t experts = in.clean.cols;
  constexpr index_t grain = 256;
  const workspace<>::scope scope(ws);
  const matrix_view<double> parts = ws.take<double>(ceil_div(in.clean.rows, grain), experts);
  if (ws.counting() || in.clean.rows == 0) return;
  PESC_ASSERT(in.k >= 1 && in.k < max_top_k && in.k < experts && load.size == experts);
  ctx.executor().parallel_for(in.clean.rows, grain, [&](index_t begin, index_t end, int) {
    double* part = parts.row(begin / grain);
    std::fill_n(part, experts, 0.0);
    for (index_t t = begin; t < end; ++t) {
      if (!in.valid.empty() && in.valid[t] == 0) continue;
      std::int32_t best[max_top_k];
      detail::top_k(in.noisy.row(t), experts, in.k + 1, best);
      for (index_t e = 0; e < experts; ++e) {
        const double z = static_cast<double>(detail::load_of(in, t, e, best).z);
        part[e] += 0.5 * std::erfc(-z * 0.70710678118654752);
      }
    }
  });
  for (index_t c = 0; c < parts.rows; ++c)
    for (index_t e = 0; e < experts; ++e) load[e] += parts(c, e);
}

/// \brief Adds the gradient of `noisy_load`, given that of the loads, to those of its inputs.
///
/// Thresholds are noisy logits, so that part goes to `dnoisy`; run `noisy_logits_backward` after it.
template <Executor E, IsaPolicy I>
void noisy_load_backward(context<E, I>& ctx, const noisy_load_inputs<>& in, vector_view<const float> dload,
                         matrix_view<float> dclean, matrix_view<float> draw, matrix_view<float> dnoisy) {
  const index_t experts = in.clean.cols;
  detail::for_rows(ctx, in.clean.rows, 16 * experts, [&](index_t t) {
    if (!in.valid.empty() && in.valid[t] == 0) return;
    std::int32_t best[max_top_k];
    detail::top_k(in.noisy.row(t), experts, in.k + 1, best);
    for (index_t e = 0; e < experts; ++e) {
      const detail::load_term term = detail::load_of(in, t, e, best);
      const float density = 0.39894228040143268f * std::exp(-0.5f * term.z * term.z);
      const float d = dload[e] * density / term.sigma;
      dclean(t, e) += d;
      draw(t, e) -= d * term.z * detail::sigmoid(in.raw(t, e));
      dnoisy(t, term.threshold) -= d;
    }
  });
}

/// \brief y = v everywhere.
template <Executor E, IsaPolicy I>
void fill(context<E, I>&, vector_view<double> y, double v) {
  std::fill(y.begin(), y.end(), v);
}

/// \brief counted[s] = expert[s] where the token of slot s counts, else `experts`, which marks a dropped
/// slot.
template <Executor E, IsaPolicy I>
void mask_slots(context<E, I>&, vector_view<const std::int32_t> token, vector_view<const std::int32_t> expert,
                vector_view<const std::uint8_t> valid, index_t experts, vector_view<std::int32_t> counted) {
  for (index_t s = 0; s < expert.size; ++s)
    counted[s] = valid[token[s]] != 0 ? expert[s] : static_cast<std::int32_t>(experts);
}

/// \brief importance[e] += gates of expert e; load[e] += slots of expert e with a positive gate. Dropped
/// slots are skipped.
template <Executor E, IsaPolicy I>
void gate_totals(context<E, I>&, vector_view<const std::int32_t> expert, vector_view<const float> gate,
                 vector_view<double> importance, vector_view<double> load) {
  PESC_ASSERT(expert.size == gate.size && importance.size == load.size);
  for (index_t s = 0; s < expert.size; ++s) {
    if (expert[s] >= importance.size) continue;
    importance[expert[s]] += static_cast<double>(gate[s]);
    if (gate[s] > 0.0f) load[expert[s]] += 1.0;
  }
}

/// \brief out[0] = squared coefficient of variation: unbiased variance over squared mean; 0 for one expert.
template <Executor E, IsaPolicy I>
void cv_squared(context<E, I>&, vector_view<const double> v, vector_view<double> out) {
  out[0] = 0.0;
  if (v.size <= 1) return;
  const double n = static_cast<double>(v.size);
  double mean = 0.0;
  for (const double x : v) mean += x / n;
  double variance = 0.0;
  for (const double x : v) variance += (x - mean) * (x - mean) / (n - 1.0);
  out[0] = variance / (mean * mean + 1e-10);
}

/// \brief dv = scale * gradient of `cv_squared`.
template <Executor E, IsaPolicy I>
void cv_squared_gradient(context<E, I>&, vector_view<const double> v, double scale, vector_view<float> dv) {
  PESC_ASSERT(v.size == dv.size);
  if (v.size <= 1) {
    std::fill(dv.begin(), dv.end(), 0.0f);
    return;
  }
  const double n = static_cast<double>(v.size);
  double mean = 0.0;
  for (const double x : v) mean += x / n;
  double variance = 0.0;
  for (const double x : v) variance += (x - mean) * (x - mean) / (n - 1.0);
  const double d = mean * mean + 1e-10;
  for (index_t e = 0; e < v.size; ++e)
    dv[e] = static_cast<float>(scale *
                               (2.0 * (v[e] - mean) / ((n - 1.0) * d) - 2.0 * mean * variance / (n * d * d)));
}

/// \brief dgate[s] += dimportance[expert[s]] for the slots that are not dropped.
template <Executor E, IsaPolicy I>
void importance_backward(context<E, I>&, vector_view<const std::int32_t> expert,
                         vector_view<const float> dimportance, vector_view<float> dgate) {
  for (index_t s = 0; s < expert.size; ++s)
    if (expert[s] < dimportance.size) dgate[s] += dimportance[expert[s]];
}

PESC_CPU_INSTANCE(void fill_normal(context<>&, const random_stream&, matrix_view<float>))
PESC_CPU_INSTANCE(void noisy_logits(context<>&, matrix_view<const float>, matrix_view<const float>,
                                    matrix_view<const float>, float, matrix_view<float>))
PESC_CPU_INSTANCE(void noisy_logits_backward(context<>&, matrix_view<const float>, matrix_view<const float>,
                                             matrix_view<const float>, matrix_view<float>,
                                             matrix_view<float>))
PESC_CPU_INSTANCE(void noisy_load(context<>&, const noisy_load_inputs<>&, vector_view<double>, workspace<>&))
PESC_CPU_INSTANCE(void noisy_load_backward(context<>&, const noisy_load_inputs<>&, vector_view<const float>,
                                           matrix_view<float>, matrix_view<float>, matrix_view<float>))
PESC_CPU_INSTANCE(void fill(context<>&, vector_view<double>, double))
PESC_CPU_INSTANCE(void mask_slots(context<>&, vector_view<const std::int32_t>,
                                  vector_view<const std::int32_t>, vector_view<const std::uint8_t>, index_t,
                                  vector_view<std::int32_t>))
PESC_CPU_INSTANCE(void gate_totals(context<>&, vector_view<const std::int32_t>, vector_view<const float>,
                                   vector_view<double>, vector_view<double>))
PESC_CPU_INSTANCE(void cv_squared(context<>&, vector_view<const double>, vector_view<double>))
PESC_CPU_INSTANCE(void cv_squared_gradient(context<>&, vector_view<const double>, double, vector_view<float>))
PESC_CPU_INSTANCE(void importance_backward(context<>&, vector_view<const std::int32_t>,
                                           vector_view<const float>, vector_view<float>))

}  // namespace PESC_CPU_ABI
}  // namespace pesc::cpu
