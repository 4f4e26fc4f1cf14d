// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/gpu/detail/loss_kernels.cuh"
#include "pesc/gpu/reduce.cuh"

namespace pesc::gpu {

/// \brief losses[t] = -log softmax(logits_t)[targets[t]]; dlogits = scale * (softmax - onehot), unless it is empty.
///
/// A target of -1 means none: loss 0 and a gradient of zeros. `dlogits` may be `logits`. The scale comes from the step
/// values where the context has them.
template <class Lazy = void>
void cross_entropy(context& ctx, matrix_view<const float, device_space> logits,
                   vector_view<const std::int32_t, device_space> targets, float scale,
                   vector_view<float, device_space> losses, matrix_view<float, device_space> dlogits) {
  PESC_ASSERT(targets.size == logits.rows && losses.size >= logits.rows);
  PESC_ASSERT(dlogits.data == nullptr || (dlogits.rows == logits.rows && dlogits.cols == logits.cols));
  const auto written = dlogits.data == nullptr ? logits : as_const(dlogits);
  detail::with_team(logits.cols, [&](auto threads) {
    detail::with_width<4>(
        [&](auto width) {
          launch(ctx, "cross_entropy_kernel", detail::cross_entropy_kernel<threads(), width()>,
                 detail::team_shape(logits.rows, threads), logits, targets.data, scale, ctx.values(),
                 losses.data, dlogits);
        },
        logits, written);
  });
}

/// \brief y[i] = table[ids[i]].
template <class Lazy = void>
void embedding(context& ctx, matrix_view<const float, device_space> table,
               vector_view<const std::int32_t, device_space> ids, matrix_view<float, device_space> y) {
  PESC_ASSERT(ids.size == y.rows && table.cols == y.cols);
  detail::with_width<4>(
      [&](auto width) {
        launch(ctx, "embedding_kernel", detail::embedding_kernel<width()>,
               detail::map_shape(y.rows, y.cols / width()), table, ids.data, y);
      },
      table, y);
}

}  // namespace pesc::gpu
