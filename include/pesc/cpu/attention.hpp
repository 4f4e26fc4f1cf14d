// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>

#include "pesc/core/views.hpp"
#include "pesc/core/workspace.hpp"
#include "pesc/cpu/context.hpp"
#include "pesc/cpu/detail/elementwise.hpp"
#include "pesc/nn/attention_types.hpp"

namespace pesc::cpu {
inline namespace PESC_CPU_ABI {
namespace detail {

/// \brief Operands of `attention`, from which the tasks of its spans are cut.
struct attention_operands {
  matrix_view<const float> q, k, v;
  attention_shape shape;

  [[nodiscard]] index_t share() const { return shape.heads / shape.kv_heads; }

  [[nodiscard]] attention_task task(const attention_span& span, index_t kv_head, const float* out,
                                    index_t out_stride, const float* lse, index_t lse_stride) const {
    const index_t column = kv_head * shape.head_dim;
    // The kernels write through these pointers in the forward operation alone.
    return {.q = q.row(span.query_begin) + column * share(),
            .k = k.row(span.key_begin) + column,
            .v = v.row(span.key_begin) + column,
            .q_stride = q.stride,
            .k_stride = k.stride,
            .v_stride = v.stride,
            .out = const_cast<float*>(out) + span.query_begin * out_stride + column * share(),
            .lse = const_cast<float*>(lse) + span.query_begin * lse_stride + kv_head * share(),
            .out_stride = out_stride,
            .lse_stride = lse_stride,
            .head_dim = shape.head_dim,
            .share = share(),
            .past = span.past,
            .scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim))};
  }
};

inline index_t longest_span(vector_view<const attention_span> spans) {
  index_t longest = 0;
  for (const attention_span& span : spans) longest = std::max(longest, span.query_end - span.query_begin);
  return longest;
}

}  // namespace detail

/// \brief Causal attention: out = softmax(q k^T / sqrt(head_dim)) v per head; `lse` keeps the log-sum-exp of
/// each row.
///
/// Scores are made block by block and never stored whole (Dao et al., "FlashAttention", 2022).
/// \param q  [tokens, heads * head_dim]; rows outside all spans are not written in `out` and `lse`
/// \param k  [keys, kv_heads * head_dim]; query head h reads kv head h / (heads / kv_heads)
template <Executor E, IsaPolicy I>
void attention(context<E, I>& ctx, matrix_view<const float> q, matrix_view<const float> k,
               matrix_view<const float> v, vector_view<const attention_span> spans,
               const attention_shape& shape, matrix_view<float> out, matrix_view<float> lse,
               workspace<>& ws) {
  const workspace<>::scope scope(ws);
  detail::with_elementwise(ctx.isa_policy(), [&](auto kernels) {
    using kernel = decltype(kernels);
    const index_t scratch_size = kernel::attention_scratch(shape.head_dim);
    float* scratch = ws.take<float>(scratch_size * ctx.executor().concurrency()).data;
    if (ws.counting() || spans.empty()) return;
    const detail::attention_operands operands{q, k, v, shape};
    const index_t tiles = ceil_div(detail::longest_span(spans) * operands.share(), kernel::attention_lanes);
    const index_t count = spans.size * shape.kv_heads * tiles;
    ctx.executor().parallel_for(count, 1, [&](index_t begin, index_t end, int worker) {
      for (index_t i = begin; i < end; ++i) {
        const attention_span& span = spans[i / (shape.kv_heads * tiles)];
        const index_t items = (span.query_end - span.query_begin) * operands.share();
        const index_t first = i % tiles * kernel::attention_lanes;
        if (first >= items) continue;
        kernel::attend(
            operands.task(span, i / tiles % shape.kv_heads, out.data, out.stride, lse.data, lse.stride),
            first, std::min(kernel::attention_lanes, items - first), scratch + worker * scratch_size);
      }
    });
  });
}

/// \brief Writes the gradients of `attention`; probabilities are computed again from `lse`.
///
/// Keys of different spans must not overlap; rows outside all spans are not written.
template <Executor E, IsaPolicy I>
void attention_backward(context<E, I>& ctx, matrix_view<const float> q, matrix_view<const float> k,
                        matrix_view<const float> v, vector_view<const attention_span> spans,
                        const attention_shape& shape, matrix_view<const float> out,
                        matrix_view<const float> lse, matrix_view<const float> dout, matrix_view<float> dq,
                        matrix_view<float> dk, matrix_view<float> dv, workspace<>& ws) {
  const workspace<>::scope scope(ws);
  detail::with_elementwise(ctx.isa_policy(), [&](auto kernels) {
    using kernel = decltype(kernels);
    const index_t scratch_size = kernel::attention_backward_scratch(shape.head_dim);
    float* scratch = ws.take<float>(scratch_size * ctx.executor().concurrency()).data;
    if (ws.counting()) return;
    const detail::attention_operands operands{q, k, v, shape};
    // One chunk adds to all keys of its head in the order of queries: no two chunks share a sum.
    ctx.executor().parallel_for(spans.size * shape.kv_heads, 1, [&](index_t begin, index_t end, int worker) {
      for (index_t i = begin; i < end; ++i) {
        const attention_span& span = spans[i / shape.kv_heads];
        const index_t kv_head = i % shape.kv_heads;
        const index_t column = kv_head * shape.head_dim;
        const index_t queries = span.query_end - span.query_begin;
        const detail::attention_gradient_task gradient{
            .dout = dout.row(span.query_begin) + column * operands.share(),
            .dq = dq.row(span.query_begin) + column * operands.share(),
            .dk = dk.row(span.key_begin) + column,
            .dv = dv.row(span.key_begin) + column,
            .dout_stride = dout.stride,
            .dq_stride = dq.stride,
            .dk_stride = dk.stride,
            .dv_stride = dv.stride};
        for (index_t j = 0; j < span.past + queries; ++j) {
          std::fill_n(gradient.dk + j * dk.stride, shape.head_dim, 0.0f);
          std::fill_n(gradient.dv + j * dv.stride, shape.head_dim, 0.0f);
        }
        const auto task = operands.task(span, kv_head, out.data, out.stride, lse.data, lse.stride);
        const index_t items = queries * operands.share();
        for (index_t first = 0; first < items; first += kernel::attention_lanes)
          kernel::attend_backward_tile(task, gradient, first,
                                       std::min(kernel::attention_lanes, items - first),
                                       scratch + worker * scratch_size);
      }
    });
  });
}

PESC_CPU_INSTANCE(void attention(context<>&, matrix_view<const float>, matrix_view<const float>,
                                 matrix_view<const float>, vector_view<const attention_span>,
                                 const attention_shape&, matrix_view<float>, matrix_view<float>,
                                 workspace<>&))
PESC_CPU_INSTANCE(void attention_backward(context<>&, matrix_view<const float>, matrix_view<const float>,
                                          matrix_view<const float>, vector_view<const attention_span>,
                                          const attention_shape&, matrix_view<const float>,
                                          matrix_view<const float>, matrix_view<const float>,
                                          matrix_view<float>, matrix_view<float>, matrix_view<float>,
                                          workspace<>&))

}  // namespace PESC_CPU_ABI
}  // namespace pesc::cpu
