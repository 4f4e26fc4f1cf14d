// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/core/product_options.hpp"
#include "pesc/core/views.hpp"
#include "pesc/core/workspace.hpp"
#include "pesc/cpu/context.hpp"
#include "pesc/cpu/detail/kernels.hpp"
#include "pesc/quant/quantized_matrix.hpp"

namespace pesc::cpu {
inline namespace PESC_CPU_ABI {

namespace detail {

/// \brief The product for every format; `w.bytes` may be null while `ws` counts.
template <Executor E, IsaPolicy I>
void multiply_frozen(context<E, I>& ctx, matrix_view<const float> x, const frozen_weight& w,
                     matrix_view<float> y, const quantized_options& options, workspace<>& ws) {
  const workspace<>::scope scope(ws);
  with_kernels(ctx.isa_policy(), [&](auto kernels) {
    using kernel = decltype(kernels);
    const index_t k = options.transpose ? w.layout.rows : w.layout.cols;
    const index_t k_padded = round_up(k, 64);
    float* packed = ws.take<float>(x.rows * k_padded).data;
    float* scratch = ws.take<float>(kernel::frozen_scratch * ctx.executor().concurrency()).data;
    if (ws.counting() || y.empty()) return;
    PESC_ASSERT(x.cols == k && y.rows == x.rows);
    PESC_ASSERT(y.cols == (options.transpose ? w.layout.cols : w.layout.rows));
    const frozen_plan plan = kernel::plan(w, options.transpose, x.rows, options.round_bf16);
    const frozen_result result{y.data, y.stride, options.accumulate};
    ctx.executor().parallel_for(plan.blocks.count(), ceil_div(index_t{16384}, k_padded),
                                [&](index_t begin, index_t end, int) {
                                  for (index_t b = begin; b < end; ++b)
                                    kernel::pack_tokens(plan, x, k_padded, b, packed);
                                });
    ctx.executor().parallel_for(kernel::slabs(plan, w), 1, [&](index_t begin, index_t end, int worker) {
      for (index_t slab = begin; slab < end; ++slab)
        kernel::multiply_frozen(plan, w, slab, packed, result, scratch + worker * kernel::frozen_scratch);
    });
  });
}

PESC_CPU_INSTANCE(void multiply_frozen(context<>&, matrix_view<const float>, const frozen_weight&,
                                       matrix_view<float>, const quantized_options&, workspace<>&))

}  // namespace detail

/// \brief y[m, N] (+)= x[m, K] Wᵀ, or with `transpose` y[m, K] (+)= x[m, N] W, from the packed bytes.
template <Executor E, IsaPolicy I, QuantFormat Format>
void quantized_matmul(context<E, I>& ctx, matrix_view<const float> x, const quantized_view<Format, panels>& w,
                      matrix_view<float> y, const quantized_options& options, workspace<>& ws) {
  detail::multiply_frozen(ctx, x, detail::frozen_weight(w), y, options, ws);
}

}  // namespace PESC_CPU_ABI
}  // namespace pesc::cpu
