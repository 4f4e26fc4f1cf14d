// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>

#include "pesc/core/views.hpp"
#include "pesc/cpu/context.hpp"
#include "pesc/cpu/elementwise.hpp"
#include "pesc/cpu/reduce.hpp"

namespace pesc::cpu {
inline namespace PESC_CPU_ABI {

/// \brief losses[t] = -log softmax(logits_t)[targets[t]]; dlogits = scale * (softmax - onehot), unless it is
/// empty.
///
/// A target of -1 means none: loss 0 and a gradient of zeros. `dlogits` may be `logits`.
template <Executor E, IsaPolicy I>
void cross_entropy(context<E, I>& ctx, matrix_view<const float> logits,
                   vector_view<const std::int32_t> targets, float scale, vector_view<float> losses,
                   matrix_view<float> dlogits) {
  PESC_ASSERT(targets.size == logits.rows && losses.size >= logits.rows);
  PESC_ASSERT(dlogits.data == nullptr || (dlogits.rows == logits.rows && dlogits.cols == logits.cols));
  const index_t vocabulary = logits.cols;
  detail::for_rows_with_kernels(ctx, logits.rows, 4 * vocabulary, [&](auto kernels, index_t t) {
    using kernel = decltype(kernels);
    const std::int32_t target = targets[t];
    PESC_ASSERT(target < vocabulary);
    if (target < 0) {
      losses[t] = 0.0f;
      if (dlogits.data != nullptr) std::fill_n(dlogits.row(t), vocabulary, 0.0f);
      return;
    }
    const float* x = logits.row(t);
    const float wanted = x[target];
    const float top = kernel::row_max(x, vocabulary);
    float* d = dlogits.data == nullptr ? nullptr : dlogits.row(t);
    const float total = d == nullptr ? kernel::template exp_row<false>(x, top, nullptr, vocabulary)
                                     : kernel::template exp_row<true>(x, top, d, vocabulary);
    losses[t] = std::log(total) + (top - wanted);
    if (d == nullptr) return;
    kernel::scaled(d, scale / total, d, vocabulary);
    d[target] -= scale;
  });
}

/// \brief y[i] = table[ids[i]].
template <Executor E, IsaPolicy I>
void embedding(context<E, I>& ctx, matrix_view<const float> table, vector_view<const std::int32_t> ids,
               matrix_view<float> y) {
  PESC_ASSERT(ids.size == y.rows && table.cols == y.cols);
  detail::for_rows(ctx, y.rows, y.cols, [&](index_t i) {
    PESC_ASSERT(ids[i] >= 0 && ids[i] < table.rows);
    std::copy_n(table.row(ids[i]), y.cols, y.row(i));
  });
}

PESC_CPU_INSTANCE(void cross_entropy(context<>&, matrix_view<const float>, vector_view<const std::int32_t>,
                                     float, vector_view<float>, matrix_view<float>))
PESC_CPU_INSTANCE(void embedding(context<>&, matrix_view<const float>, vector_view<const std::int32_t>,
                                 matrix_view<float>))

}  // namespace PESC_CPU_ABI
}  // namespace pesc::cpu
