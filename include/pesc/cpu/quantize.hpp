// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>

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
void dequantize_row(Kernels, const frozen_weight& w, const scale_tensors<host_space>& scales, index_t r,
                    T* out) {
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
    case element_kind::code4:
    case element_kind::code8:
      break;
  }
  for (index_t i = begin; i < end;) {
    const index_t block = i / layout.block;
    const index_t n = std::min((block + 1) * layout.block, end) - i;
    const float minimum = scales.minimum != nullptr ? scales.minimum[block] : 0.0f;
    Kernels::dequantize_run(w, i, n, {decode_scale(layout.scales, scales, block), minimum},
                            out + (i - begin));
    i += n;
  }
}

}  // namespace detail

/// \brief Writes all weights as `T`, each one product in float rounded once; the same bits on every
/// instruction set.
template <Executor E, IsaPolicy I, QuantFormat Format, Scalar T>
void dequantize(context<E, I>& ctx, const quantized_view<Format, row_blocks>& weight, matrix_view<T> out) {
  PESC_ASSERT(out.rows == weight.rows && out.cols == weight.cols);
  if (weight.empty()) return;
  const detail::frozen_weight w(weight);
  detail::with_kernels(ctx.isa_policy(), [&](auto kernels) {
    ctx.executor().parallel_for(weight.rows, ceil_div(index_t{16384}, weight.cols),
                                [&](index_t begin, index_t end, int) {
                                  for (index_t r = begin; r < end; ++r)
                                    detail::dequantize_row(kernels, w, weight.scales, r, out.row(r));
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

namespace detail {

/// \brief Flattened weights `begin` to `begin + n` - 1, in `copy` where rows do not follow one another.
template <Scalar T>
const T* flat_range(matrix_view<const T> m, index_t begin, index_t n, T* copy) {
  if (m.stride == m.cols) return m.data + begin;
  for (index_t i = begin; i < begin + n;) {
    const index_t count = std::min(m.cols - i % m.cols, begin + n - i);
    std::copy_n(m.row(i / m.cols) + i % m.cols, count, copy + (i - begin));
    i += count;
  }
  return copy;
}

/// \brief First of the flattened weights that is not finite, or their number.
template <Scalar T>
index_t first_not_finite(matrix_view<const T> m) {
  for (index_t i = 0; i < m.size(); ++i)
    if (!std::isfinite(to_float(m(i / m.cols, i % m.cols)))) return i;
  return m.size();
}

/// \brief The longest block that the buffer of a worker holds.
inline constexpr index_t longest_block = 4096;

/// \brief Codes and scales of all blocks; false where a weight is not finite.
template <Executor E, IsaPolicy I, Scalar T>
bool quantize_all_blocks(context<E, I>& ctx, const format_info& info, matrix_view<const T> weight,
                         std::uint8_t* codes, float* absmax) {
  std::atomic<bool> finite{true};
  const index_t n = weight.size();
  with_kernels(ctx.isa_policy(), [&](auto kernels) {
    using kernel = decltype(kernels);
    const index_t grain = std::max<index_t>(1, 16384 / info.block);
    ctx.executor().parallel_for(info.blocks(n), grain, [&](index_t first, index_t last, int) {
      T copy[longest_block];
      const index_t whole = std::min(last, n / info.block);
      if (weight.stride == weight.cols)
        kernel::quantize_whole_blocks(info, weight.data + first * info.block, whole - first,
                                      codes + first * info.block / 2, absmax + first);
      else
        for (index_t b = first; b < whole; ++b)
          kernel::quantize_whole_blocks(info, flat_range(weight, b * info.block, info.block, copy), 1,
                                        codes + b * info.block / 2, absmax + b);
      for (index_t b = std::max(first, whole); b < last; ++b) {
        // The short last block is divided instead of multiplied.
        const T* x = flat_range(weight, b * info.block, n - b * info.block, copy);
        absmax[b] = HUGE_VALF;
        if (std::all_of(x, x + (n - b * info.block), [](T v) { return std::isfinite(to_float(v)); }))
          quantize_blocks(info, x, n - b * info.block, 0, 1, codes + b * info.block / 2, absmax + b);
      }
      if (std::find(absmax + first, absmax + last, HUGE_VALF) != absmax + last)
        finite.store(false, std::memory_order_relaxed);
    });
  });
  return finite.load(std::memory_order_relaxed);
}

/// \brief Numbers of any storage type in row order.
template <Executor E, IsaPolicy I, Scalar S, Scalar T>
void store_numbers(context<E, I>& ctx, matrix_view<const S> weight, T* out) {
  with_kernels(ctx.isa_policy(), [&](auto kernels) {
    using kernel = decltype(kernels);
    ctx.executor().parallel_for(weight.rows, ceil_div(index_t{16384}, weight.cols),
                                [&](index_t begin, index_t end, int) {
                                  for (index_t r = begin; r < end; ++r)
                                    kernel::convert_run(weight.row(r), out + r * weight.cols, weight.cols);
                                });
  });
}

PESC_CPU_INSTANCE(bool quantize_all_blocks(context<>&, const format_info&, matrix_view<const float>,
                                           std::uint8_t*, float*))
PESC_CPU_INSTANCE(bool quantize_all_blocks(context<>&, const format_info&, matrix_view<const bf16>,
                                           std::uint8_t*, float*))
PESC_CPU_INSTANCE(bool quantize_all_blocks(context<>&, const format_info&, matrix_view<const f16>,
                                           std::uint8_t*, float*))

}  // namespace detail

/// \brief Quantises a weight [rows, cols] into `out`, whose format and size must fit.
///
/// The codes and scales are those of `pesc::quantize`, with blocks spread over the threads.
/// \param offset  the offset of double quantisation; by default the mean of the scales
/// \throws shape_error when `out` has another size or format
/// \throws numeric_error for NaN or infinite weights, with the position of the first
template <Executor E, IsaPolicy I, QuantFormat Format, Scalar T>
void quantize(context<E, I>& ctx, const format_info& info, matrix_view<const T> weight,
              quantized_matrix<Format, row_blocks>& out, const float* offset = nullptr) {
  PESC_EXPECTS(out.rows() == weight.rows && out.cols() == weight.cols && out.format() == info, "quantise ",
               weight.rows, " x ", weight.cols, " to ", info.name, " into a matrix of ", out.rows(), " x ",
               out.cols(), " of ", out.format().name);
  PESC_EXPECTS(!info.is_read_only(), info.name, ": weights of this format come from files only");
  if (weight.empty()) return;
  std::uint8_t* codes = out.codes().data;
  if (info.element == element_kind::f32)
    return detail::store_numbers(ctx, weight, reinterpret_cast<float*>(codes));
  if (info.element == element_kind::bf16)
    return detail::store_numbers(ctx, weight, reinterpret_cast<bf16*>(codes));
  if (info.element == element_kind::f16)
    return detail::store_numbers(ctx, weight, reinterpret_cast<f16*>(codes));
  if (info.block > detail::longest_block || info.block % 32 != 0) {
    out = pesc::quantize<Format>(info, weight, offset);
    return;
  }
  const index_t blocks = info.blocks(weight.size());
  buffer<float> scales(info.scales == scale_kind::double_quant ? blocks : 0);
  float* absmax = info.scales == scale_kind::double_quant ? scales.data() : out.absmax().data;
  if (!detail::quantize_all_blocks(ctx, info, weight, codes, absmax))
    pesc::detail::raise<numeric_error>(pesc::detail::concat("weight ", detail::first_not_finite(weight),
                                                            " is not finite and cannot be quantised to ",
                                                            info.name));
  if (info.scales == scale_kind::plain) return;
  std::copy(dynamic_map().begin(), dynamic_map().end(), out.map().begin());
  out.offset() = offset != nullptr ? *offset : mean_scale(absmax, blocks);
  quantize_to_map(absmax, blocks, nested_block, out.offset(), out.map().data, out.nested_absmax().data,
                  out.scale_codes().data);
}

}  // namespace PESC_CPU_ABI
}  // namespace pesc::cpu
