// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/core/product_options.hpp"
#include "pesc/core/workspace.hpp"
#include "pesc/gpu/detail/frozen_plain_kernels.cuh"
#include "pesc/gpu/detail/tuning.cuh"
#include "pesc/gpu/launch.cuh"

namespace pesc::gpu {
namespace detail {

[[nodiscard]] inline bool rows_of_vectors(matrix_view<const float, device_space> m) {
  return reinterpret_cast<std::uintptr_t>(m.data) % 16 == 0 && m.stride % 4 == 0;
}

/// \brief Any shape, in float.
inline void multiply_plain(context& ctx, const frozen_product& p, bool transpose) {
  const index_t feature_tiles = ceil_div(p.y.cols, 64);
  const auto run = [&](auto kernel, index_t tokens) {
    launch(ctx, "frozen_plain_kernel", kernel, grid_1d(feature_tiles * ceil_div(p.y.rows, tokens) * 256, 256),
           p, feature_tiles);
  };
  if (p.y.rows <= 16)
    run(transpose ? frozen_plain_kernel<16, true> : frozen_plain_kernel<16, false>, 16);
  else
    run(transpose ? frozen_plain_kernel<64, true> : frozen_plain_kernel<64, false>, 64);
}

/// \brief y (+)= x Wᵀ for few tokens; false, with nothing done, where the device has too little shared
/// memory.
template <class Source, int Tiles, int Tokens>
bool multiply_stream(context& ctx, const frozen_product& p, workspace<device_space>& ws) {
  stream_product s = plan_stream<Source, Tiles>(ctx.limits(), p.w.layout.rows, p.w.layout.cols, p.x.rows);
  if (s.slices == 0 || s.tiles > ctx.tickets().size) return false;
  s.partial = ws.take<float>(stream_part_elements(p.w.layout.rows, p.x.rows)).data;
  if (ws.counting()) return true;
  const stream_memory memory = stream_memory_of<Source, Tiles>(ctx.limits(), s, p.x.rows);
  s.p = p;
  s.large_bytes = static_cast<std::uint32_t>(memory.large_bytes);
  s.small_bytes = static_cast<std::uint32_t>(memory.small_bytes);
  s.x_vectors = rows_of_vectors(p.x);
  s.y_vectors = rows_of_vectors(p.y);
  s.tickets = ctx.tickets().data;
  launch_shape shape = grid_1d(index_t{s.slices} * s.slice_blocks * stream_warps * 32, stream_warps * 32);
  shape.shared_bytes = memory.launch_bytes;
  launch(ctx, "frozen_stream_kernel", frozen_stream_kernel<Source, Tiles, Tokens / 8>, shape, s);
  return true;
}

/// \brief Rounds x into scratch and runs a kernel that cuts tiles of `features` and `tokens` into ranges.
///
/// \param tile_bytes  of the sums of a tile
template <class Source>
bool multiply_tiles(context& ctx, const frozen_product& p, void (*kernel)(tiled_product), const char* name,
                    index_t features, index_t tokens, index_t step, index_t tile_bytes, index_t small_bytes,
                    index_t large_bytes, workspace<device_space>& ws) {
  launch_shape shape;
  shape.shared_bytes =
      table_memory<Source::stride>::bytes(ctx.limits().compute_capability, small_bytes, large_bytes);
  const index_t token_tiles = ceil_div(p.x.rows, tokens), depth = ceil_div(p.x.cols, step);
  const index_t tiles = ceil_div(p.y.cols, features) * token_tiles;
  const work_split split = plan_tiles(ctx.limits(), tiles, depth);
  if (shape.shared_bytes > ctx.limits().shared_bytes || split.blocks > ctx.tickets().size ||
      index_t{split.tiles} * split.depth * split.blocks >= index_t{1} << 32)
    return false;
  const index_t stride = round_up(p.x.cols, 64);
  const auto rounded = ws.take<bf16>(p.x.rows * stride);
  const auto partial = ws.take<std::byte>(2 * most_tile_blocks(ctx.limits(), tiles, depth) * tile_bytes);
  if (ws.counting()) return true;
  const matrix_view<bf16, device_space> x(rounded.data, p.x.rows, p.x.cols, stride);
  launch(ctx, "round_tokens_kernel", round_tokens_kernel<256>, grid_1d(p.x.rows * (stride / 4), 256), p.x, x,
         rows_of_vectors(p.x));
  tiled_product s;
  s.p = p;
  s.x = as_const(x);
  s.split = split;
  s.token_tiles = static_cast<std::uint32_t>(token_tiles);
  s.partial = reinterpret_cast<float4*>(partial.data);
  s.tickets = ctx.tickets().data;
  shape.grid = dim3(split.blocks);
  shape.block = dim3(256);
  launch(ctx, name, kernel, shape, s);
  return true;
}

/// \brief y (+)= x Wᵀ for many tokens.
template <class Source, int Tiles, int DepthWarps>
bool multiply_many(context& ctx, const frozen_product& p, workspace<device_space>& ws) {
  using memory = tile_memory<Source, Tiles, DepthWarps>;
  constexpr index_t features = 8 / DepthWarps * Tiles * 16;
  return multiply_tiles<Source>(ctx, p, frozen_tile_kernel<Source, Tiles, DepthWarps>, "frozen_tile_kernel",
                                features, tile_tokens, 64 * DepthWarps, features * tile_tokens * 4,
                                memory::small_bytes, memory::large_bytes, ws);
}

/// \brief y (+)= x W.
template <class Source, int Tokens>
bool multiply_transposed(context& ctx, const frozen_product& p, workspace<device_space>& ws) {
  using memory = transposed_memory<Source, Tokens>;
  return multiply_tiles<Source>(ctx, p, frozen_transposed_kernel<Source, Tokens>, "frozen_transposed_kernel",
                                transposed_cols, Tokens, 64, transposed_cols * Tokens * 4,
                                memory::small_bytes, memory::large_bytes, ws);
}

/// \brief Products on tensor cores with one kind of weight; false, with nothing done, where no kernel takes
/// it.
///
/// \tparam Coarse  gives codes without their scales, to the kernel that applies these to sums
/// \tparam Exact  gives weights
template <class Coarse, class Exact>
bool multiply_rounded(context& ctx, const frozen_product& p, bool transpose, workspace<device_space>& ws) {
  constexpr auto tune = [](index_t tokens, bool transposed, bool few) {
    return tune_frozen(Exact::element, Exact::stride, tokens, transposed, few, few);
  };
  const index_t tokens = p.x.rows;
  if (transpose) {
    if (tune(tokens, true, false).tokens == 64) return multiply_transposed<Exact, 64>(ctx, p, ws);
    if constexpr (tune(1 << 20, true, false).tokens == 256)
      return multiply_transposed<Exact, 256>(ctx, p, ws);
  }
  // Few tokens of very long rows may not fit; the other kernel takes them too.
  if (tokens <= 8 && multiply_stream<Coarse, tune(8, false, false).row_tiles, 8>(ctx, p, ws)) return true;
  if (tokens > 8 && tokens <= 16 && multiply_stream<Coarse, tune(16, false, false).row_tiles, 16>(ctx, p, ws))
    return true;
  if (tokens > 16 && tokens <= 32 &&
      multiply_stream<Coarse, tune(32, false, false).row_tiles, 32>(ctx, p, ws))
    return true;
  // Scratch for many tokens must do for fewer.
  {
    const workspace<device_space>::scope scope(ws);
    static_cast<void>(ws.take<float>(stream_part_elements(p.w.layout.rows, tokens)));
  }
  constexpr frozen_tuning many = tune(64, false, false), fewer = tune(64, false, true);
  const index_t tiles = ceil_div(p.y.cols, 8 * many.row_tiles * 16) * ceil_div(tokens, tile_tokens);
  if constexpr (fewer.depth_warps == 2)
    if (tiles < ctx.limits().multiprocessors && p.x.cols % 128 == 0)
      return multiply_many<Exact, fewer.row_tiles, 2>(ctx, p, ws);
  return multiply_many<Exact, many.row_tiles, 1>(ctx, p, ws);
}

}  // namespace detail

/// \brief y[m, N] (+)= x[m, K] Wᵀ, or with `transpose` y[m, K] (+)= x[m, N] W, from the packed bytes.
///
/// With `round_bf16` activations and weights are rounded to bfloat16, sums are in float. Without it, and for
/// rows that are not made of whole cells of 64, everything is in float. The order of sums depends on the
/// sizes and the device alone.
template <QuantFormat Format>
void quantized_matmul(context& ctx, matrix_view<const float, device_space> x,
                      const quantized_view<Format, fragments, device_space>& w,
                      matrix_view<float, device_space> y, const quantized_options& options,
                      workspace<device_space>& ws) {
  PESC_ASSERT(x.cols == (options.transpose ? w.rows : w.cols) && y.rows == x.rows);
  PESC_ASSERT(y.cols == (options.transpose ? w.cols : w.rows));
  const workspace<device_space>::scope scope(ws);
  // Never nothing: a workspace over no memory would only count.
  static_cast<void>(ws.take<std::byte>(1));
  if (y.empty()) return;
  const detail::frozen_product p{detail::frozen_weight(w), x, y, options.accumulate};
  bool done = false;
  if (options.round_bf16 && x.cols > 0 && detail::has_source(p.w))
    detail::with_source<Format>(p.w, detail::table_stride(ctx.limits().compute_capability), [&](auto kind) {
      using exact = typename decltype(kind)::exact;
      using coarse = typename decltype(kind)::coarse;
      // The kernels count bytes of rounded activations with 32 bits.
      const index_t most = (index_t{1} << 31) / round_up(x.cols, 64) / 256 * 256;
      for (index_t first = 0; first < x.rows; first += most) {
        const workspace<device_space>::scope pass(ws);
        detail::frozen_product part = p;
        part.x = x.row_range(first, std::min(most, x.rows - first));
        part.y = y.row_range(first, part.x.rows);
        done = detail::multiply_rounded<coarse, exact>(ctx, part, options.transpose, ws);
        if (!done) break;
      }
    });
  if (!done && !ws.counting()) detail::multiply_plain(ctx, p, options.transpose);
}

}  // namespace pesc::gpu
