// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <atomic>

#include "pesc/core/views.hpp"
#include "pesc/cpu/context.hpp"
#include "pesc/cpu/detail/kernels.hpp"
#include "pesc/quant/quantize.hpp"
#include "pesc/quant/quantized_matrix.hpp"

namespace pesc::cpu {
inline namespace PESC_CPU_ABI {
namespace detail {

/// \brief Row `r` of a matrix in the order of checkpoints.
template <class Kernels, Scalar T>
void dequantize_row(Kernels, const frozen_weight& w, const scale_tensors<host_space>& scales, index_t r, T* out) {
  const panel_layout& layout = w.layout;
  const index_t begin = r * layout.cols;
  const index_t end = begin + layout.cols;
  switch (layout.element) {
    case element_kind::f32:
      return Kernels::convert_run(reinterpret_cast<const float*>(w.bytes) + begin, out, layout.cols);
    case element_kind::bf16:
      return Kernels::convert_run(reinterpret_cast<const bf16*>(w.bytes) + begin, out, layout.cols);
    case element_kind::f16:
      return Kernels::convert_run(reinterpret_cast<const f16*>(w.bytes) + begin, out, layout.cols);
    case element_kind::code4: break;
  }
  for (index_t i = begin; i < end;) {
    const index_t block = i / layout.block;
    const index_t n = std::min((block + 1) * layout.block, end) - i;
    Kernels::dequantize_run(w, i, n, decode_scale(layout.scales, scales, block), out + (i - begin));
    i += n;
  }
}

}  // namespace detail

/// \brief Writes all weights as `T`, each one product in float rounded once; the same bits on every instruction set.
template <Executor E, IsaPolicy I, QuantFormat Format, Scalar T>
void dequantize(context<E, I>& ctx, const quantized_view<Format, row_blocks>& weight, matrix_view<T> out) {
  PESC_ASSERT(out.rows == weight.rows && out.cols == weight.cols);
  if (weight.empty()) return;
  const detail::frozen_weight w(weight);
  detail::with_kernels(ctx.isa_policy(), [&](auto kernels) {
    ctx.executor().parallel_for(weight.rows, ceil_div(index_t{16384}, weight.cols), [&](index_t begin, index_t end, int) {
      for (index_t r = begin; r < end; ++r) detail::dequantize_row(kernels, w, weight.scales, r, out.row(r));
    });
  });
}

template <Executor E, IsaPolicy I, QuantFormat Format, Scalar T>
void dequantize(context<E, I>& ctx, const quantized_view<Format, panels>& weight, matrix_view<T> out) {
  PESC_ASSERT(out.rows == weight.rows && out.cols == weight.cols);
  if (weight.empty()) return;
  const detail::frozen_weight w(weight);
  detail::with_kernels(ctx.isa_policy(), [&](auto kernels) {
    using kernel = decltype(kernels);
    ctx.executor().parallel_for(w.layout.panel_count(), 1, [&](index_t begin, index_t end, int) {
      alignas(64) float tile[64 * 64];
      for (index_t panel = begin; panel < end; ++panel)
        for (index_t cell = 0; cell < w.layout.cell_count(); ++cell)
          kernel::dequantize_cell(w, panel, cell, out, tile);
    });
  });
}

/// \brief Quantises a weight [rows, cols] into `out`, whose format and size must fit.
///
/// The codes and scales are those of `pesc::quantize`, with blocks spread over the threads.
/// \throws numeric_error for NaN or infinite weights, with the position of the first
template <Executor E, IsaPolicy I, QuantFormat Format, Scalar T>
void quantize(context<E, I>& ctx, const format_info& info, matrix_view<const T> weight,
              quantized_matrix<Format, row_blocks>& out) {
  static_cast<void>(ctx);
  out = pesc::quantize<Format>(info, weight);
}

}  // namespace PESC_CPU_ABI
}  // namespace pesc::cpu
