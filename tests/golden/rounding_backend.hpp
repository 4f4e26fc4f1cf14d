// SPDX-License-Identifier: Apache-2.0
#pragma once

// A backend whose forward operations round every intermediate to bfloat16, as a framework does that keeps its tensors in
// that type. References computed so differ from exact arithmetic by several per cent of their largest logit; against this
// backend they differ in last bits only. Everything but the operations below is the CPU backend.

#include <cmath>
#include <vector>

#include "pesc/pesc.hpp"

namespace golden {

class rounding_backend : public pesc::cpu_backend {
 public:
  using pesc::cpu::context<>::context;
  [[nodiscard]] pesc::cpu_backend& exact() { return *this; }
};

namespace detail {

using pesc::index_t;
using pesc::matrix_view;
using pesc::vector_view;

inline float rounded(float x) { return pesc::to_float(pesc::to_bf16(x)); }

inline void round_all(matrix_view<float> y) {
  for (index_t i = 0; i < y.rows; ++i)
    for (index_t j = 0; j < y.cols; ++j) y(i, j) = rounded(y(i, j));
}

}  // namespace detail

inline void matmul(rounding_backend& ctx, pesc::matrix_view<const float> a, pesc::matrix_view<const float> b,
                   pesc::matrix_view<float> y, const pesc::matmul_options& options, pesc::workspace<>& ws) {
  matmul(ctx.exact(), a, b, y, options, ws);
  if (!ws.counting() && !options.transpose_a) detail::round_all(y);
}

/// \brief The product is rounded before it is scaled, and again after.
inline void grouped_matmul(rounding_backend& ctx, pesc::vector_view<const std::int32_t> offsets,
                           pesc::matrix_view<const float> a, pesc::batch_view<const float> b,
                           pesc::matrix_view<float> y, pesc::matmul_options options, pesc::workspace<>& ws) {
  const float alpha = options.alpha;
  options.alpha = 1.0f;
  grouped_matmul(ctx.exact(), offsets, a, b, y, options, ws);
  if (ws.counting()) return;
  detail::round_all(y);
  for (pesc::index_t i = 0; i < y.rows; ++i)
    for (pesc::index_t j = 0; j < y.cols; ++j) y(i, j) = detail::rounded(alpha * y(i, j));
}

template <pesc::QuantFormat Format>
void quantized_matmul(rounding_backend& ctx, pesc::matrix_view<const float> x,
                      const pesc::quantized_view<Format, pesc::panels>& w, pesc::matrix_view<float> y,
                      const pesc::quantized_options& options, pesc::workspace<>& ws) {
  quantized_matmul(ctx.exact(), x, w, y, options, ws);
  if (!ws.counting() && !options.transpose) detail::round_all(y);
}

inline void top_k_softmax(rounding_backend& ctx, pesc::matrix_view<const float> logits, int k,
                          const pesc::gate_options& options, pesc::vector_view<std::int32_t> expert,
                          pesc::vector_view<float> gate) {
  top_k_softmax(ctx.exact(), logits, k, options, expert, gate);
  for (float& g : gate) g = detail::rounded(g);
}

template <pesc::Activation A>
void activate(rounding_backend& ctx, A act, pesc::matrix_view<const float> x, pesc::matrix_view<float> y) {
  activate(ctx.exact(), act, x, y);
  detail::round_all(y);
}

template <pesc::Activation A>
void gated_activate(rounding_backend& ctx, A act, pesc::matrix_view<const float> gate,
                    pesc::matrix_view<const float> up, pesc::matrix_view<float> out) {
  activate(ctx, act, gate, out);
  for (pesc::index_t i = 0; i < out.rows; ++i)
    for (pesc::index_t j = 0; j < out.cols; ++j) out(i, j) = detail::rounded(out(i, j) * up(i, j));
}

/// \brief Every expert's output with its residual, then each product with a gate, then the sum is rounded.
inline void combine_rows(rounding_backend&, pesc::matrix_view<const float> h,
                         pesc::matrix_view<const float> e, pesc::vector_view<const float> gate,
                         const pesc::slot_groups<>& groups, bool, pesc::matrix_view<float> y) {
  for (pesc::index_t t = 0; t < y.rows; ++t)
    for (pesc::index_t j = 0; j < y.cols; ++j) {
      float sum = 0.0f;
      for (pesc::index_t i = groups.token_offsets[t]; i < groups.token_offsets[t + 1]; ++i) {
        const std::int32_t slot = groups.token_slots[i];
        const float out = detail::rounded(h(t, j) + e(groups.slot_of[slot], j));
        sum += detail::rounded(gate[slot] * out);
      }
      y(t, j) = detail::rounded(sum);
    }
}

inline void add_scaled(rounding_backend& ctx, pesc::matrix_view<const float> x, float alpha,
                       pesc::matrix_view<float> y) {
  add_scaled(ctx.exact(), x, alpha, y);
  detail::round_all(y);
}

inline void rms_norm(rounding_backend& ctx, pesc::matrix_view<const float> x,
                     pesc::vector_view<const float> weight, float eps, pesc::matrix_view<float> y,
                     pesc::vector_view<float> inv_rms) {
  const std::vector<float> ones(static_cast<std::size_t>(weight.size), 1.0f);
  rms_norm(ctx.exact(), x, std::span(ones), eps, y, inv_rms);
  detail::round_all(y);
  for (pesc::index_t i = 0; i < y.rows; ++i)
    for (pesc::index_t j = 0; j < y.cols; ++j) y(i, j) = detail::rounded(y(i, j) * weight[j]);
}

/// \brief Cosine, sine and both products are rounded; pairs of halves only. The inverse is the exact one.
inline void rope(rounding_backend& ctx, pesc::matrix_view<float> q,
                 pesc::vector_view<const std::int32_t> positions, pesc::vector_view<const float> inv_freq,
                 pesc::rope_pairing pairing, float direction) {
  if (direction < 0.0f) return rope(ctx.exact(), q, positions, inv_freq, pairing, direction);
  const pesc::index_t half = inv_freq.size;
  for (pesc::index_t t = 0; t < q.rows; ++t)
    for (pesc::index_t at = 0; at < q.cols; at += 2 * half)
      for (pesc::index_t i = 0; i < half; ++i) {
        const float angle = static_cast<float>(positions[t]) * inv_freq[i];
        const float c = detail::rounded(std::cos(angle));
        const float s = detail::rounded(std::sin(angle));
        float& u = q(t, at + i);
        float& v = q(t, at + half + i);
        const float turned = detail::rounded(detail::rounded(u * c) - detail::rounded(v * s));
        v = detail::rounded(detail::rounded(v * c) + detail::rounded(u * s));
        u = turned;
      }
}

/// \brief Scores are stored, and rounded, before and after the division; so are the probabilities.
inline void attention(rounding_backend& ctx, pesc::matrix_view<const float> q,
                      pesc::matrix_view<const float> k, pesc::matrix_view<const float> v,
                      pesc::vector_view<const pesc::attention_span> spans, const pesc::attention_shape& shape,
                      pesc::matrix_view<float> out, pesc::matrix_view<float> lse, pesc::workspace<>& ws) {
  // For the log-sum-exp, and for the scratch that it counts.
  attention(ctx.exact(), q, k, v, spans, shape, out, lse, ws);
  if (ws.counting()) return;
  const float root = std::sqrt(static_cast<float>(shape.head_dim));
  for (const pesc::attention_span& span : spans)
    for (pesc::index_t row = span.query_begin; row < span.query_end; ++row)
      for (pesc::index_t head = 0; head < shape.heads; ++head) {
        const pesc::index_t keys = span.past + row - span.query_begin + 1;
        const pesc::index_t at = head * shape.head_dim;
        const pesc::index_t kv = head / (shape.heads / shape.kv_heads) * shape.head_dim;
        std::vector<float> p(static_cast<std::size_t>(keys));
        float top = -HUGE_VALF;
        for (pesc::index_t j = 0; j < keys; ++j) {
          float dot = 0.0f;
          for (pesc::index_t d = 0; d < shape.head_dim; ++d)
            dot += q(row, at + d) * k(span.key_begin + j, kv + d);
          float& score = p[static_cast<std::size_t>(j)];
          score = detail::rounded(detail::rounded(dot) / root);
          top = std::max(top, score);
        }
        float total = 0.0f;
        for (float& x : p) total += x = std::exp(x - top);
        for (float& x : p) x = detail::rounded(x / total);
        for (pesc::index_t d = 0; d < shape.head_dim; ++d) {
          float sum = 0.0f;
          for (pesc::index_t j = 0; j < keys; ++j)
            sum += p[static_cast<std::size_t>(j)] * v(span.key_begin + j, kv + d);
          out(row, at + d) = detail::rounded(sum);
        }
      }
}

}  // namespace golden
