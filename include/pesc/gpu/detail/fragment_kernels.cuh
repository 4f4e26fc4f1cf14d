// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "pesc/gpu/launch.cuh"
#include "pesc/quant/fragment_layout.hpp"

// Rearranges weights from the order of checkpoints to that of fragments and back. A warp moves one 4-bit
// record: 16 rows of 32 bytes on one side, 512 bytes that follow one another on the other. Shapes of other
// kinds go element by element.

namespace pesc::gpu::detail {

/// \brief The place of a record, from its number in the order of records.
struct record_place {
  index_t tile, cell;

  __device__ record_place(const fragment_layout& l, index_t record) {
    const index_t four_cells = record / fragment_layout::group_tiles;
    cell = four_cells % l.cell_count();
    tile = four_cells / l.cell_count() * fragment_layout::group_tiles + record % fragment_layout::group_tiles;
  }
};

/// \brief Swaps the codes of each byte: checkpoints hold the first one in the high nibble.
__device__ inline std::uint32_t swap_nibbles(std::uint32_t w) {
  return (w & 0x0F0F0F0Fu) << 4 | (w >> 4 & 0x0F0F0F0Fu);
}

/// \brief Exchanges 16 rows of two 16-byte chunks with the words of the lanes; no two lanes meet in a bank.
struct record_exchange {
  std::uint32_t* words;  ///< 128 of the warp, in shared memory

  __device__ static int chunk(int row, int half) { return (row % 8 ^ half * 4) + 8 * (row / 8 * 2 + half); }
  __device__ uint4& row_chunk(int row, int half) const {
    return reinterpret_cast<uint4*>(words)[chunk(row, half)];
  }
  __device__ std::uint32_t& word(int row, int half, int i) const { return words[chunk(row, half) * 4 + i]; }
};

/// \brief One record a warp. Needs whole cells in a row and `from` at a multiple of 16 bytes.
template <int Threads>
__global__ void __launch_bounds__(Threads)
    pack_codes_kernel(fragment_layout layout, const std::uint8_t* from, std::uint8_t zero, std::uint8_t* to) {
  __shared__ uint4 exchange[Threads / 32][32];
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const index_t record = blockIdx.x * index_t{Threads / 32} + threadIdx.x / 32;
  if (record >= layout.tile_count() * layout.cell_count()) return;
  const record_place place(layout, record);
  const record_exchange shared{reinterpret_cast<std::uint32_t*>(exchange[threadIdx.x / 32])};

  const index_t row = place.tile * fragment_layout::tile_rows + lane / 2;
  const std::uint32_t none = zero * 0x11111111u;
  uint4 chunk = make_uint4(none, none, none, none);
  if (row < layout.rows)
    chunk = *reinterpret_cast<const uint4*>(from + (row * layout.cols + place.cell * 64) / 2 + lane % 2 * 16);
  shared.row_chunk(lane / 2, lane % 2) = chunk;
  __syncwarp();

  const int g = lane / 4, t = lane % 4;
  std::uint32_t words[4];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const std::uint32_t upper = shared.word(g, half, t);
    const std::uint32_t lower = shared.word(g + 8, half, t);
    words[half * 2] = swap_nibbles(__byte_perm(upper, lower, 0x5140));
    words[half * 2 + 1] = swap_nibbles(__byte_perm(upper, lower, 0x7362));
  }
  reinterpret_cast<uint4*>(to)[record * 32 + lane] = make_uint4(words[0], words[1], words[2], words[3]);
}

/// \brief The way back; needs the same.
template <int Threads>
__global__ void __launch_bounds__(Threads)
    unpack_codes_kernel(fragment_layout layout, const std::uint8_t* from, std::uint8_t* to) {
  __shared__ uint4 exchange[Threads / 32][32];
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const index_t record = blockIdx.x * index_t{Threads / 32} + threadIdx.x / 32;
  if (record >= layout.tile_count() * layout.cell_count()) return;
  const record_place place(layout, record);
  const record_exchange shared{reinterpret_cast<std::uint32_t*>(exchange[threadIdx.x / 32])};

  const uint4 words = reinterpret_cast<const uint4*>(from)[record * 32 + lane];
  const int g = lane / 4, t = lane % 4;
  shared.word(g, 0, t) = swap_nibbles(__byte_perm(words.x, words.y, 0x6420));
  shared.word(g + 8, 0, t) = swap_nibbles(__byte_perm(words.x, words.y, 0x7531));
  shared.word(g, 1, t) = swap_nibbles(__byte_perm(words.z, words.w, 0x6420));
  shared.word(g + 8, 1, t) = swap_nibbles(__byte_perm(words.z, words.w, 0x7531));
  __syncwarp();

  const index_t row = place.tile * fragment_layout::tile_rows + lane / 2;
  if (row < layout.rows)
    *reinterpret_cast<uint4*>(to + (row * layout.cols + place.cell * 64) / 2 + lane % 2 * 16) =
        shared.row_chunk(lane / 2, lane % 2);
}

/// \brief Code of flattened weight `i` in the order of checkpoints.
__device__ inline std::uint32_t checkpoint_code(const std::uint8_t* codes, index_t i) {
  return codes[i / 2] >> (i % 2 == 0 ? 4 : 0) & 0x0Fu;
}

/// \brief One byte of a record a thread, any shape; padding gets the code of zero.
template <int Threads>
__global__ void __launch_bounds__(Threads)
    pack_any_codes_kernel(fragment_layout layout, const std::uint8_t* from, std::uint8_t zero,
                          std::uint8_t* to) {
  const index_t byte = blockIdx.x * index_t{Threads} + threadIdx.x;
  if (byte >= layout.bytes()) return;
  const record_place place(layout, byte / 512);
  const int lane = static_cast<int>(byte % 512) / 16, step = static_cast<int>(byte % 16) / 4;
  const int a = static_cast<int>(byte % 4);
  const index_t row = place.tile * 16 + lane / 4 + a % 2 * 8;
  const index_t col = place.cell * 64 + step / 2 * 32 + lane % 4 * 8 + step % 2 * 4 + a / 2 * 2;
  std::uint32_t pair = zero * 0x11u;
  const index_t i = row * layout.cols + col;
  if (row < layout.rows && col < layout.cols) pair = (pair & 0xF0u) | checkpoint_code(from, i);
  if (row < layout.rows && col + 1 < layout.cols) pair = (pair & 0x0Fu) | checkpoint_code(from, i + 1) << 4;
  to[byte] = static_cast<std::uint8_t>(pair);
}

/// \brief One byte of a checkpoint a thread, any shape; `tail` is the unused half of the last byte of an odd
/// number.
template <int Threads>
__global__ void __launch_bounds__(Threads)
    unpack_any_codes_kernel(fragment_layout layout, const std::uint8_t* from, std::uint8_t tail,
                            std::uint8_t* to) {
  const index_t byte = blockIdx.x * index_t{Threads} + threadIdx.x;
  const index_t n = layout.rows * layout.cols;
  if (byte >= ceil_div(n, 2)) return;
  const auto code = [&](index_t i) -> std::uint32_t {
    if (i >= n) return tail;
    const index_t row = i / layout.cols, col = i % layout.cols;
    const std::uint8_t* record = from + layout.offset(row / 16, col / 64);
    return record[fragment_layout::code_byte(row % 16, col % 64)] >> fragment_layout::code_shift(col) & 0x0Fu;
  };
  to[byte] = static_cast<std::uint8_t>(code(2 * byte) << 4 | code(2 * byte + 1));
}

/// \brief Half-precision numbers, whole cells in a row: 16 bytes of each of two rows become 16 bytes of each
/// of two steps.
template <int Threads, bool Back>
__global__ void __launch_bounds__(Threads)
    permute_halves_kernel(fragment_layout layout, const uint4* from, uint4* to) {
  const index_t unit = blockIdx.x * index_t{Threads} + threadIdx.x;
  if (unit >= layout.tile_count() * layout.cell_count() * 64) return;
  const record_place place(layout, unit / 64);
  const int lane = static_cast<int>(unit % 32), half = static_cast<int>(unit / 32 % 2);
  const index_t row = place.tile * 16 + lane / 4;
  const index_t piece = row * (layout.cols / 8) + place.cell * 8 + half * 4 + lane % 4;
  const index_t lower_piece = piece + layout.cols;  // eight rows further
  const index_t record = unit / 64 * 128 + half * 64 + lane;
  if constexpr (Back) {
    const uint4 first = from[record], second = from[record + 32];
    if (row < layout.rows) to[piece] = make_uint4(first.x, first.z, second.x, second.z);
    if (row + 8 < layout.rows) to[lower_piece] = make_uint4(first.y, first.w, second.y, second.w);
  } else {
    const uint4 zero = make_uint4(0, 0, 0, 0);
    const uint4 upper = row < layout.rows ? from[piece] : zero;
    const uint4 lower = row + 8 < layout.rows ? from[lower_piece] : zero;
    to[record] = make_uint4(upper.x, lower.x, upper.y, lower.y);
    to[record + 32] = make_uint4(upper.z, lower.z, upper.w, lower.w);
  }
}

/// \brief Numbers of any shape, one weight a thread; padding stays as it is.
template <int Threads, class Word, bool Back>
__global__ void __launch_bounds__(Threads)
    permute_numbers_kernel(fragment_layout layout, const Word* from, Word* to) {
  const index_t i = blockIdx.x * index_t{Threads} + threadIdx.x;
  if (i >= layout.rows * layout.cols) return;
  const index_t row = i / layout.cols, col = i % layout.cols;
  const index_t place = layout.offset(row / 16, col / 64) / static_cast<index_t>(sizeof(Word)) +
                        layout.number(row % 16, col % 64);
  to[Back ? i : place] = from[Back ? place : i];
}

/// \brief Moves the scales of 16 rows and 64 units a block between the order of blocks and that of cells.
///
/// A scale that several cells repeat goes back from the one where its block begins.
template <int Threads, class T, bool Back>
__global__ void __launch_bounds__(Threads)
    permute_scales_kernel(fragment_layout layout, const T* from, T* to) {
  constexpr int units = 64;
  __shared__ T entries[16 * (units + 8)];
  const int run = static_cast<int>(fragment_layout::run_cells * layout.units_per_cell());
  const index_t tile_entries = layout.run_count() * 16 * run;
  const index_t chunks = ceil_div(tile_entries, 16 * units);
  const index_t tile = blockIdx.x / chunks;
  const index_t first = blockIdx.x % chunks * units;
  // Rows r and r + 8 lie side by side, at a distance that keeps the banks of a warp apart.
  const auto place = [&](int r, int unit) { return (r % 8 * 2 + r / 8) * (units + run) + unit; };
  const auto by_cell = [&](auto move) {
    for (int e = static_cast<int>(threadIdx.x); e < 16 * units; e += Threads) {
      const int i = e / run;
      if (first * 16 + e < tile_entries)
        move(tile * tile_entries + first * 16 + e, place(i / 2 % 8 + i % 2 * 8, i / 16 * run + e % run));
    }
  };
  const auto by_row = [&](auto move) {
    for (int e = static_cast<int>(threadIdx.x); e < 16 * units; e += Threads) {
      const index_t row = tile * 16 + e / units;
      const index_t col = (first + e % units) * layout.unit_cols();
      move(row, col, row < layout.rows && col < layout.cols, place(e / units, e % units));
    }
  };
  if constexpr (Back) {
    by_cell([&](index_t entry, int at) { entries[at] = from[entry]; });
    __syncthreads();
    by_row([&](index_t row, index_t col, bool inside, int at) {
      if (inside && (row * layout.cols + col) % layout.block == 0)
        to[layout.block_of(row, col)] = entries[at];
    });
  } else {
    by_row([&](index_t row, index_t col, bool inside, int at) {
      entries[at] = inside ? from[layout.block_of(row, col)] : T{};
    });
    __syncthreads();
    by_cell([&](index_t entry, int at) { to[entry] = entries[at]; });
  }
}

[[nodiscard]] inline bool aligned(const void* data, std::uintptr_t bytes) {
  return reinterpret_cast<std::uintptr_t>(data) % bytes == 0;
}

/// \brief device = device, in stream order.
template <class T>
void copy_tensor(context& ctx, const T* from, vector_view<T, device_space> to) {
  if (to.empty()) return;
  PESC_CUDA_TRY(cudaMemcpyAsync(to.data, from, static_cast<std::size_t>(to.size) * sizeof(T),
                                cudaMemcpyDeviceToDevice, ctx.stream()));
}

/// \brief Scales of one type between the order of blocks and that of a layout.
template <bool Back, class T>
void permute_scales(context& ctx, const fragment_layout& layout, const T* from,
                    vector_view<T, device_space> to) {
  if (to.empty()) return;
  if (!layout.scales_by_cell()) return copy_tensor(ctx, from, to);
  constexpr int threads = 256;
  const index_t entries =
      layout.run_count() * fragment_layout::run_cells * layout.units_per_cell();  // of one row
  launch(ctx, "permute_scales_kernel", permute_scales_kernel<threads, T, Back>,
         grid_1d(layout.tile_count() * ceil_div(entries, 64) * threads, threads), layout, from, to.data);
}

/// \brief Numbers between the order of rows and that of a layout.
template <bool Back>
void permute_numbers(context& ctx, const fragment_layout& layout, const std::uint8_t* from,
                     std::uint8_t* to) {
  constexpr int threads = 256;
  const index_t n = layout.rows * layout.cols;
  if (layout.element == element_kind::f32)
    launch(ctx, "permute_numbers_kernel", permute_numbers_kernel<threads, std::uint32_t, Back>,
           grid_1d(n, threads), layout, reinterpret_cast<const std::uint32_t*>(from),
           reinterpret_cast<std::uint32_t*>(to));
  else if (layout.cols % fragment_layout::cell_cols == 0 && aligned(from, 16) && aligned(to, 16))
    launch(ctx, "permute_halves_kernel", permute_halves_kernel<threads, Back>,
           grid_1d(layout.tile_count() * layout.cell_count() * 64, threads), layout,
           reinterpret_cast<const uint4*>(from), reinterpret_cast<uint4*>(to));
  else
    launch(ctx, "permute_numbers_kernel", permute_numbers_kernel<threads, std::uint16_t, Back>,
           grid_1d(n, threads), layout, reinterpret_cast<const std::uint16_t*>(from),
           reinterpret_cast<std::uint16_t*>(to));
}

/// \brief 4-bit codes from the order of checkpoints.
inline void pack_codes(context& ctx, const fragment_layout& layout, const std::uint8_t* from,
                       std::uint8_t zero, std::uint8_t* to) {
  constexpr int threads = 256;
  if (layout.cols % fragment_layout::cell_cols == 0 && aligned(from, 16))
    launch(ctx, "pack_codes_kernel", pack_codes_kernel<threads>,
           grid_1d(layout.tile_count() * layout.cell_count() * 32, threads), layout, from, zero, to);
  else
    launch(ctx, "pack_any_codes_kernel", pack_any_codes_kernel<threads>, grid_1d(layout.bytes(), threads),
           layout, from, zero, to);
}

/// \brief 4-bit codes to the order of checkpoints.
inline void unpack_codes(context& ctx, const fragment_layout& layout, const std::uint8_t* from,
                         std::uint8_t tail, std::uint8_t* to) {
  constexpr int threads = 256;
  if (layout.cols % fragment_layout::cell_cols == 0)
    launch(ctx, "unpack_codes_kernel", unpack_codes_kernel<threads>,
           grid_1d(layout.tile_count() * layout.cell_count() * 32, threads), layout, from, to);
  else
    launch(ctx, "unpack_any_codes_kernel", unpack_any_codes_kernel<threads>,
           grid_1d(ceil_div(layout.rows * layout.cols, 2), threads), layout, from, tail, to);
}

}  // namespace pesc::gpu::detail
