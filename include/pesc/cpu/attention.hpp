// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>

#include "pesc/core/views.hpp"
#include "pesc/core/workspace.hpp"
#include "pesc/cpu/context.hpp"
#include "pesc/nn/attention_types.hpp"

namespace pesc::cpu {
inline namespace PESC_CPU_ABI {

/// \brief Causal attention: out = softmax(q k^T / sqrt(head_dim)) v per head; `lse` keeps the log-sum-exp of each row.
///
/// \param q  [tokens, heads * head_dim]; every row belongs to one span
/// \param k  [keys, kv_heads * head_dim]; query head h reads kv head h / (heads / kv_heads)
template <Executor E, IsaPolicy I>
void attention(context<E, I>& ctx, matrix_view<const float> q, matrix_view<const float> k, matrix_view<const float> v,
               vector_view<const attention_span> spans, const attention_shape& shape, matrix_view<float> out,
               matrix_view<float> lse, workspace<>& ws) {
  if (ws.counting()) return;
  const index_t size = shape.head_dim;
  const index_t share = shape.heads / shape.kv_heads;
  const float scale = 1.0f / std::sqrt(static_cast<float>(size));
  for (const attention_span& span : spans) {
    const index_t rows = span.query_end - span.query_begin;
    ctx.executor().parallel_for(rows * shape.heads, 1, [&](index_t begin, index_t end, int) {
      for (index_t item = begin; item < end; ++item) {
        const index_t row = span.query_begin + item / shape.heads;
        const index_t head = item % shape.heads;
        const index_t kv = head / share * size;
        const index_t keys = span.past + row - span.query_begin + 1;
        const float* query = q.row(row) + head * size;
        float* sum = out.row(row) + head * size;
        std::fill_n(sum, size, 0.0f);
        float top = -HUGE_VALF;
        float total = 0.0f;
        for (index_t j = 0; j < keys; ++j) {
          const float* key = k.row(span.key_begin + j) + kv;
          const float* value = v.row(span.key_begin + j) + kv;
          float score = 0.0f;
          for (index_t c = 0; c < size; ++c) score += query[c] * key[c];
          score *= scale;
          if (score > top) {
            const float fade = std::exp(top - score);
            total *= fade;
            for (index_t c = 0; c < size; ++c) sum[c] *= fade;
            top = score;
          }
          const float weight = std::exp(score - top);
          total += weight;
          for (index_t c = 0; c < size; ++c) sum[c] += weight * value[c];
        }
        for (index_t c = 0; c < size; ++c) sum[c] /= total;
        lse(row, head) = top + std::log(total);
      }
    });
  }
}

/// \brief Writes the gradients of `attention`; probabilities are computed again from `lse`.
///
/// Keys of different spans must not overlap.
template <Executor E, IsaPolicy I>
void attention_backward(context<E, I>& ctx, matrix_view<const float> q, matrix_view<const float> k,
                        matrix_view<const float> v, vector_view<const attention_span> spans,
                        const attention_shape& shape, matrix_view<const float> out, matrix_view<const float> lse,
                        matrix_view<const float> dout, matrix_view<float> dq, matrix_view<float> dk,
                        matrix_view<float> dv, workspace<>& ws) {
  if (ws.counting()) return;
  const index_t size = shape.head_dim;
  const index_t share = shape.heads / shape.kv_heads;
  const float scale = 1.0f / std::sqrt(static_cast<float>(size));
  ctx.executor().parallel_for(spans.size * shape.kv_heads, 1, [&](index_t begin, index_t end, int) {
    for (index_t item = begin; item < end; ++item) {
      const attention_span& span = spans[item / shape.kv_heads];
      const index_t group = item % shape.kv_heads;
      const index_t kv = group * size;
      const index_t all_keys = span.past + span.query_end - span.query_begin;
      for (index_t j = span.key_begin; j < span.key_begin + all_keys; ++j) {
        std::fill_n(dk.row(j) + kv, size, 0.0f);
        std::fill_n(dv.row(j) + kv, size, 0.0f);
      }
      for (index_t row = span.query_begin; row < span.query_end; ++row) {
        const index_t keys = span.past + row - span.query_begin + 1;
        for (index_t head = group * share; head < (group + 1) * share; ++head) {
          const float* query = q.row(row) + head * size;
          const float* d = dout.row(row) + head * size;
          const float* o = out.row(row) + head * size;
          float* dquery = dq.row(row) + head * size;
          std::fill_n(dquery, size, 0.0f);
          float mean = 0.0f;
          for (index_t c = 0; c < size; ++c) mean += d[c] * o[c];
          for (index_t j = span.key_begin; j < span.key_begin + keys; ++j) {
            const float* key = k.row(j) + kv;
            const float* value = v.row(j) + kv;
            float score = 0.0f;
            float dp = 0.0f;
            for (index_t c = 0; c < size; ++c) {
              score += query[c] * key[c];
              dp += d[c] * value[c];
            }
            const float p = std::exp(score * scale - lse(row, head));
            const float ds = p * (dp - mean) * scale;
            float* dkey = dk.row(j) + kv;
            float* dvalue = dv.row(j) + kv;
            for (index_t c = 0; c < size; ++c) {
              dvalue[c] += p * d[c];
              dkey[c] += ds * query[c];
              dquery[c] += ds * key[c];
            }
          }
        }
      }
    }
  });
}

}  // namespace PESC_CPU_ABI
}  // namespace pesc::cpu
