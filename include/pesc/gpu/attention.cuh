// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>

#include "pesc/core/workspace.hpp"
#include "pesc/gpu/detail/attention_backward_kernels.cuh"
#include "pesc/gpu/detail/attention_row_kernels.cuh"
#include "pesc/gpu/elementwise.cuh"

namespace pesc::gpu {
namespace detail {

/// \brief Whether rows of heads can be moved in 16-byte accesses.
template <class... Matrices>
[[nodiscard]] bool head_vectors(index_t head_dim, const Matrices&... m) {
  return head_dim % 4 == 0 && (packable<4>(m) && ...);
}

[[nodiscard]] inline attention_inputs attention_operands(device_matrix<const float> q,
                                                         device_matrix<const float> k,
                                                         device_matrix<const float> v,
                                                         device_vector<const attention_span> spans,
                                                         const attention_shape& shape) {
  PESC_EXPECTS(shape.head_dim >= 1 && shape.head_dim <= 256, "attention with heads of ", shape.head_dim,
               " elements: 1 to 256 are possible");
  PESC_EXPECTS(shape.kv_heads >= 1 && shape.heads % shape.kv_heads == 0, "attention of ", shape.heads,
               " heads with ", shape.kv_heads, " heads of keys: expected a divisor");
  const index_t share = shape.heads / shape.kv_heads;
  PESC_EXPECTS(q.rows * share <= 0x7FFFFFFF && k.rows <= 0x7FFFFFFF, "attention over ", q.rows, " rows and ",
               k.rows, " keys: too many");
  return {q,
          k,
          v,
          spans,
          static_cast<int>(share),
          static_cast<int>(shape.head_dim),
          1.0f / std::sqrt(static_cast<float>(shape.head_dim)),
          head_vectors(shape.head_dim, q, k, v)};
}

template <class Tile>
void launch_attention_tiles(context& ctx, attention_inputs in, const attention_shape& shape,
                            device_matrix<float> out, device_matrix<float> lse) {
  in.vectors = in.vectors && packable<4>(out);
  launch_shape blocks;
  blocks.grid = dim3(static_cast<unsigned>(in.q.rows * in.share / Tile::rows + in.spans.size),
                     static_cast<unsigned>(shape.kv_heads));
  blocks.block = dim3(Tile::threads);
  blocks.shared_bytes = index_t{sizeof(float)} * (Tile::resident_floats + Tile::streamed_floats +
                                                  Tile::threads / 32 * Tile::weight_floats);
  launch(ctx, "attention_kernel", attention_kernel<Tile>, blocks, in, out, lse);
}

/// \brief Memory for parts of keys. Its size does not depend on the number of rows, so that what suffices for many does
/// for few.
[[nodiscard]] inline attention_parts take_parts(workspace<device_space>& ws) {
  constexpr index_t blocks = attention_row_blocks;
  // Every block has rows of 256 sums together, of at most four heads.
  return {1, ws.take<attention_terms>(blocks * 4).data, ws.take<float>(blocks * 256).data};
}

template <class Row>
void launch_attention_rows(context& ctx, const attention_inputs& in, const attention_shape& shape,
                           device_matrix<float> out, device_matrix<float> lse, attention_parts parts) {
  const index_t across = shape.kv_heads * ceil_div(in.share, Row::heads);
  const index_t most = std::min<index_t>(32, ceil_div(in.k.rows, 64));
  parts.splits = static_cast<int>(std::clamp<index_t>(attention_row_blocks / (in.q.rows * across), 1, most));
  launch_shape blocks = grid_1d(in.q.rows * parts.splits, 1);
  blocks.grid.y = static_cast<unsigned>(across);
  blocks.block = dim3(Row::threads);
  launch(ctx, "attention_row_kernel", attention_row_kernel<Row>, blocks, in, out, lse, parts);
  if (parts.splits == 1) return;
  blocks = grid_1d(in.q.rows, 1);
  blocks.grid.y = static_cast<unsigned>(shape.heads);
  blocks.block = dim3(Row::dim);
  launch(ctx, "attention_merge_kernel", attention_merge_kernel<Row>, blocks, in, out, lse, parts);
}

/// \brief Forward attention with kernels for heads of up to `Dim` elements.
template <int Dim, class Tile>
void launch_attention(context& ctx, const attention_inputs& in, const attention_shape& shape,
                      device_matrix<float> out, device_matrix<float> lse, const attention_parts& parts) {
  // Where spans have a handful of queries each, tiles of items would be nearly empty.
  if (in.q.rows <= 4 * in.spans.size)
    in.vectors ? launch_attention_rows<attention_row<Dim, true>>(ctx, in, shape, out, lse, parts)
               : launch_attention_rows<attention_row<Dim, false>>(ctx, in, shape, out, lse, parts);
  else
    launch_attention_tiles<Tile>(ctx, in, shape, out, lse);
}

template <class Tile>
void launch_attention_backward(context& ctx, attention_inputs in, const attention_shape& shape,
                               const attention_gradient_inputs& gradient, device_matrix<float> dq,
                               device_matrix<float> dk, device_matrix<float> dv) {
  in.vectors = in.vectors && packable<4>(gradient.out) && packable<4>(gradient.dout) && packable<4>(dq) &&
               packable<4>(dk) && packable<4>(dv);
  launch_shape blocks;
  blocks.block = dim3(Tile::threads);
  blocks.shared_bytes = index_t{sizeof(float)} * attention_backward_memory<Tile>::floats;
  blocks.grid = dim3(static_cast<unsigned>(in.q.rows * in.share / Tile::rows + in.spans.size),
                     static_cast<unsigned>(shape.kv_heads));
  launch(ctx, "attention_query_gradient_kernel", attention_query_gradient_kernel<Tile>, blocks, in, gradient,
         dq);
  blocks.grid.x = static_cast<unsigned>(in.k.rows / Tile::rows + in.spans.size);
  launch(ctx, "attention_key_gradient_kernel", attention_key_gradient_kernel<Tile>, blocks, in, gradient, dk,
         dv);
}

}  // namespace detail

/// \brief Causal attention: out = softmax(q k^T / sqrt(head_dim)) v per head; `lse` keeps the log-sum-exp of each row.
///
/// Scores are made block by block and never stored whole (Dao et al., "FlashAttention", 2022).
/// \param q  [tokens, heads * head_dim]; rows outside all spans are not written in `out` and `lse`
/// \param k  [keys, kv_heads * head_dim]; query head h reads kv head h / (heads / kv_heads)
/// \param spans  in device memory; query rows of different spans do not overlap
/// \throws shape_error for heads of more than 256 elements
template <class Lazy = void>
void attention(context& ctx, matrix_view<const float, device_space> q,
               matrix_view<const float, device_space> k, matrix_view<const float, device_space> v,
               vector_view<const attention_span, device_space> spans, const attention_shape& shape,
               matrix_view<float, device_space> out, matrix_view<float, device_space> lse,
               workspace<device_space>& ws) {
  const auto in = detail::attention_operands(q, k, v, spans, shape);
  const workspace<device_space>::scope scope(ws);
  const detail::attention_parts parts = detail::take_parts(ws);
  if (ws.counting() || q.rows == 0 || spans.empty()) return;
  if (shape.head_dim <= 64)
    detail::launch_attention<64, detail::attention_tile<64, 8, 64, 4>>(ctx, in, shape, out, lse, parts);
  else if (shape.head_dim <= 128)
    detail::launch_attention<128, detail::attention_tile<128, 8, 64, 4>>(ctx, in, shape, out, lse, parts);
  else
    detail::launch_attention<256, detail::attention_tile<256, 8, 32, 2>>(ctx, in, shape, out, lse, parts);
}

/// \brief Writes the gradients of `attention`; probabilities are computed again from `lse`.
///
/// Keys of different spans must not overlap; rows outside all spans are not written.
/// \throws shape_error as above
template <class Lazy = void>
void attention_backward(context& ctx, matrix_view<const float, device_space> q,
                        matrix_view<const float, device_space> k, matrix_view<const float, device_space> v,
                        vector_view<const attention_span, device_space> spans, const attention_shape& shape,
                        matrix_view<const float, device_space> out,
                        matrix_view<const float, device_space> lse,
                        matrix_view<const float, device_space> dout, matrix_view<float, device_space> dq,
                        matrix_view<float, device_space> dk, matrix_view<float, device_space> dv,
                        workspace<device_space>& ws) {
  const auto in = detail::attention_operands(q, k, v, spans, shape);
  const workspace<device_space>::scope scope(ws);
  const detail::attention_gradient_inputs gradient{out, lse, dout, ws.take<float>(q.rows, shape.heads)};
  if (ws.counting() || spans.empty()) return;
  if (shape.head_dim <= 64)
    detail::launch_attention_backward<detail::attention_tile<64, 8, 64, 4>>(ctx, in, shape, gradient, dq, dk,
                                                                            dv);
  else if (shape.head_dim <= 128)
    detail::launch_attention_backward<detail::attention_tile<128, 8, 32, 2>>(ctx, in, shape, gradient, dq, dk,
                                                                             dv);
  else
    detail::launch_attention_backward<detail::attention_tile<256, 4, 16, 2>>(ctx, in, shape, gradient, dq, dk,
                                                                             dv);
}

}  // namespace pesc::gpu
