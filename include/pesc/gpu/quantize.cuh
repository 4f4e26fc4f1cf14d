// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>

#include "pesc/gpu/detail/dequantize_kernels.cuh"
#include "pesc/gpu/detail/fragment_kernels.cuh"
#include "pesc/gpu/detail/frozen_weight.cuh"
#include "pesc/gpu/detail/quantize_kernels.cuh"
#include "pesc/gpu/detail/tuning.cuh"
#include "pesc/gpu/launch.cuh"
#include "pesc/gpu/transfer.cuh"
#include "pesc/quant/quantize.hpp"

// Loading frozen weights, and turning them into numbers. `pack`, `unpack`, `to_device`, `to_host` and
// `quantize` allocate or wait for the device and belong to loading; `dequantize` does neither.

namespace pesc::gpu {
/// \brief Rearranges a weight in device memory for the CUDA kernels, lossless to the bit for every shape and
/// block.
///
/// The tensors are those of a checkpoint: packed codes and their scales. They are only read, and may go after
/// the work of the stream.
/// \throws shape_error when a tensor that the format needs is missing
template <QuantFormat Format>
[[nodiscard]] quantized_matrix<Format, fragments, device_resource> pack(
    context& ctx, const quantized_view<Format, row_blocks, device_space>& from) {
  const format_info& info = from.format();
  quantized_matrix<Format, fragments, device_resource> to(info, from.rows, from.cols);
  if (from.empty()) return to;
  const scale_tensors<device_space>& s = from.scales;
  const bool nested = info.scales == scale_kind::double_quant;
  PESC_EXPECTS(from.codes != nullptr, "weight of ", from.rows, " x ", from.cols, " without codes");
  PESC_EXPECTS(!info.is_read_only(), info.name,
               " weights are for the CPU; load them as numbers or in a 4-bit format instead");
  PESC_EXPECTS(info.scales != scale_kind::plain || s.absmax != nullptr, info.name,
               " weight without its scales (absmax)");
  PESC_EXPECTS(!nested || (s.codes != nullptr && s.nested_absmax != nullptr && s.map != nullptr), info.name,
               " weight with double-quantised scales needs their codes, nested_absmax and map");
  const fragment_layout layout(info, from.rows, from.cols);
  const index_t n = from.rows * from.cols;
  if (info.element == element_kind::code4)
    detail::pack_codes(ctx, layout, from.codes, info.encode(0.0f), to.codes().data);
  else
    detail::permute_numbers<false>(ctx, layout, from.codes, to.codes().data);
  detail::permute_scales<false>(ctx, layout, s.absmax, to.absmax());
  detail::permute_scales<false>(ctx, layout, s.codes, to.scale_codes());
  detail::copy_tensor(ctx, s.nested_absmax, to.nested_absmax());
  detail::copy_tensor(ctx, s.map, to.map());
  to.offset() = s.offset;
  if (info.element == element_kind::code4 && n % 2 == 1) {
    std::uint8_t last = 0;
    download(ctx, vector_view<const std::uint8_t, device_space>(from.codes + n / 2, 1),
             vector_view<std::uint8_t>(&last, 1));
    to.tail_nibble() = static_cast<std::uint8_t>(last & 0x0F);
  }
  return to;
}

/// \brief Gives back exactly the bytes that `pack` was given.
template <QuantFormat Format>
[[nodiscard]] quantized_matrix<Format, row_blocks, device_resource> unpack(
    context& ctx, const quantized_matrix<Format, fragments, device_resource>& from) {
  const format_info& info = from.format();
  quantized_matrix<Format, row_blocks, device_resource> to(info, from.rows(), from.cols());
  if (from.empty()) return to;
  const fragment_layout layout(info, from.rows(), from.cols());
  if (info.element == element_kind::code4)
    detail::unpack_codes(ctx, layout, from.codes().data, from.tail_nibble(), to.codes().data);
  else
    detail::permute_numbers<true>(ctx, layout, from.codes().data, to.codes().data);
  detail::permute_scales<true>(ctx, layout, from.absmax().data, to.absmax());
  detail::permute_scales<true>(ctx, layout, from.scale_codes().data, to.scale_codes());
  detail::copy_tensor(ctx, from.nested_absmax().data, to.nested_absmax());
  detail::copy_tensor(ctx, from.map().data, to.map());
  to.offset() = from.offset();
  to.tail_nibble() = from.tail_nibble();
  return to;
}

/// \brief A copy in device memory of a weight in the caller's memory, in the order of checkpoints.
template <QuantFormat Format>
[[nodiscard]] quantized_matrix<Format, row_blocks, device_resource> to_device(
    context& ctx, const quantized_view<Format, row_blocks>& from) {
  quantized_matrix<Format, row_blocks, device_resource> to(from.format(), from.rows, from.cols);
  const auto copy = [&](const auto* source, auto target) {
    using type = std::remove_pointer_t<decltype(target.data)>;
    if (source != nullptr) upload(ctx, vector_view<const type>(source, target.size), target);
  };
  copy(from.codes, to.codes());
  copy(from.scales.absmax, to.absmax());
  copy(from.scales.codes, to.scale_codes());
  copy(from.scales.nested_absmax, to.nested_absmax());
  copy(from.scales.map, to.map());
  to.offset() = from.scales.offset;
  return to;
}

/// \brief The same in the caller's memory; waits for the stream.
template <QuantFormat Format>
[[nodiscard]] quantized_matrix<Format, row_blocks> to_host(
    context& ctx, const quantized_matrix<Format, row_blocks, device_resource>& from) {
  quantized_matrix<Format, row_blocks> to(from.format(), from.rows(), from.cols());
  download(ctx, from.codes(), to.codes());
  download(ctx, from.absmax(), to.absmax());
  download(ctx, from.scale_codes(), to.scale_codes());
  download(ctx, from.nested_absmax(), to.nested_absmax());
  download(ctx, from.map(), to.map());
  to.offset() = from.offset();
  to.tail_nibble() = from.tail_nibble();
  return to;
}

/// \brief A weight of a checkpoint in the caller's memory, in device memory and in the order of the CUDA
/// kernels.
/// \throws shape_error when a tensor that the format needs is missing
template <QuantFormat Format>
[[nodiscard]] quantized_matrix<Format, fragments, device_resource> pack(
    context& ctx, const quantized_view<Format, row_blocks>& from) {
  const quantized_matrix<Format, row_blocks, device_resource> copy = to_device(ctx, from);
  auto device = copy.view();
  // A tensor that is missing stays missing, so that it is named.
  if (from.codes == nullptr) device.codes = nullptr;
  if (from.scales.absmax == nullptr) device.scales.absmax = nullptr;
  if (from.scales.codes == nullptr) device.scales.codes = nullptr;
  if (from.scales.nested_absmax == nullptr) device.scales.nested_absmax = nullptr;
  if (from.scales.map == nullptr) device.scales.map = nullptr;
  return pack(ctx, device);
}

namespace detail {

template <class T, class S>
void store_numbers(context& ctx, matrix_view<const S, device_space> weight, std::uint8_t* out) {
  constexpr int threads = 256;
  launch(ctx, "store_numbers_kernel", store_numbers_kernel<threads, S, T>, grid_1d(weight.size(), threads),
         weight, reinterpret_cast<T*>(out));
}

/// \brief Codes and scales of all blocks.
/// \throws numeric_error for NaN or infinite weights
template <class T>
void quantize_all_blocks(context& ctx, const format_info& info, matrix_view<const T, device_space> weight,
                         std::uint8_t* codes, float* absmax) {
  constexpr int threads = 256;
  unsigned long long first_bad = ~0ull;
  device_buffer<unsigned long long> flag(1);
  upload(ctx, vector_view<const unsigned long long>(&first_bad, 1), flag.view());
  launch(ctx, "quantize_blocks_kernel", quantize_blocks_kernel<threads, T>,
         grid_1d(info.blocks(weight.size()) * 32, threads), info, weight, codes, absmax, flag.data());
  download(ctx, as_const(flag.view()), vector_view<unsigned long long>(&first_bad, 1));
  if (first_bad != ~0ull)
    pesc::detail::raise<numeric_error>(
        pesc::detail::concat("weight ", first_bad, " is not finite and cannot be quantised to ", info.name));
}

/// \brief Second level of double quantisation of `absmax`.
template <QuantFormat Format>
void quantize_scales(context& ctx, vector_view<const float, device_space> absmax,
                     quantized_matrix<Format, row_blocks, device_resource>& out, const float* offset) {
  constexpr int threads = 256;
  if (offset != nullptr) {
    out.offset() = *offset;
  } else {
    buffer<float> values(absmax.size);
    download(ctx, absmax, values.view());
    out.offset() = mean_scale(values.data(), values.size());  // the order of this sum is part of its bits
  }
  upload(ctx, vector_view<const float>(dynamic_map().data(), 256), out.map());
  launch(ctx, "quantize_scales_kernel", quantize_scales_kernel<threads>,
         grid_1d(out.nested_absmax().size * 32, threads), absmax.data, absmax.size, out.offset(),
         out.map().data, out.nested_absmax().data, out.scale_codes().data);
}

}  // namespace detail

/// \brief Quantises a weight [rows, cols] in device memory into `out`, whose format and size must fit; waits
/// for the stream.
///
/// The codes and scales are those of `pesc::quantize`, to the bit.
/// \param offset  the offset of double quantisation; by default the mean of the scales
/// \throws shape_error when `out` has another size or format, or a block has an odd number of weights
/// \throws numeric_error for NaN or infinite weights, with the position of the first
template <QuantFormat Format, Scalar T>
void quantize(context& ctx, const format_info& info, matrix_view<const T, device_space> weight,
              quantized_matrix<Format, row_blocks, device_resource>& out, const float* offset = nullptr) {
  PESC_EXPECTS(out.rows() == weight.rows && out.cols() == weight.cols && out.format() == info, "quantise ",
               weight.rows, " x ", weight.cols, " to ", info.name, " into a matrix of ", out.rows(), " x ",
               out.cols(), " of ", out.format().name);
  if (weight.empty()) return;
  std::uint8_t* codes = out.codes().data;
  if (info.element == element_kind::f32) return detail::store_numbers<float>(ctx, weight, codes);
  if (info.element == element_kind::bf16) return detail::store_numbers<bf16>(ctx, weight, codes);
  if (info.element == element_kind::f16) return detail::store_numbers<f16>(ctx, weight, codes);
  PESC_EXPECTS(info.block % 2 == 0, info.name, " in blocks of ", info.block, ": must be even");
  if (info.scales == scale_kind::plain)
    return detail::quantize_all_blocks(ctx, info, weight, codes, out.absmax().data);
  device_buffer<float> absmax(info.blocks(weight.size()));
  detail::quantize_all_blocks(ctx, info, weight, codes, absmax.data());
  detail::quantize_scales(ctx, as_const(absmax.view()), out, offset);
}

/// \brief Writes all weights as `T`, each one product in float rounded once; the bits of the CPU, NaN aside.
template <QuantFormat Format, Scalar T>
void dequantize(context& ctx, const quantized_view<Format, fragments, device_space>& weight,
                matrix_view<T, device_space> out) {
  PESC_ASSERT(out.rows == weight.rows && out.cols == weight.cols);
  if (weight.empty()) return;
  const detail::frozen_weight w(weight);
  bool done = false;
  if (detail::has_source(w) && detail::aligned(out.data, 16) &&
      out.stride * static_cast<index_t>(sizeof(T)) % 16 == 0)
    detail::with_source<Format>(w, detail::table_stride(ctx.limits().compute_capability), [&](auto kind) {
      using source = typename decltype(kind)::exact;
      if constexpr (source::scaled) {
        constexpr int threads = 512;
        const index_t items = w.layout.tile_count() * w.layout.run_count();
        const index_t blocks = std::min<index_t>(ctx.limits().multiprocessors, ceil_div(items, threads / 32));
        launch_shape shape = grid_1d(blocks * threads, threads);
        shape.shared_bytes = detail::table_memory<source::stride>::bytes(ctx.limits().compute_capability,
                                                                         source::map_bytes, 0);
        launch(ctx, "dequantize_kernel", detail::dequantize_kernel<threads, source, T>, shape, w, out);
        done = true;
      }
    });
  if (done) return;
  constexpr int threads = 256;
  launch(ctx, "dequantize_any_kernel", detail::dequantize_any_kernel<threads, T>,
         grid_1d(out.size(), threads), w, out);
}

template <QuantFormat Format, Scalar T>
void dequantize(context& ctx, const quantized_view<Format, row_blocks, device_space>& weight,
                matrix_view<T, device_space> out) {
  PESC_ASSERT(out.rows == weight.rows && out.cols == weight.cols);
  if (weight.empty()) return;
  constexpr int threads = 256;
  launch(ctx, "dequantize_blocks_kernel", detail::dequantize_blocks_kernel<threads, T>,
         grid_1d(out.size(), threads), weight.format(), weight.codes, weight.scales, out);
}

}  // namespace pesc::gpu
