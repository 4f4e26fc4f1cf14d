// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "pesc/gpu/detail/frozen_weight.cuh"
#include "pesc/gpu/detail/mma.cuh"

// Decoding of 4-bit codes by a table in shared memory: a byte of a record, which is a pair of codes, selects
// one of 256 pairs of numbers. Every entry is repeated for the banks of all lanes, so that no data make
// conflicts.
//
// The wide table has a distance of 256 bytes between entries and lies at a multiple of 64 KB, so that a byte
// of codes is a byte of the address, which one PRMT instruction forms. Pairs fill the first half of an entry;
// the second half repeats the entry of the map of double quantisation with the same number. The narrow table,
// for devices whose blocks have less than 128 KB, has only the pairs; its addresses take a shift and a mask.

namespace pesc::gpu::detail {

inline constexpr int wide_table = 256;  ///< bytes between entries
inline constexpr int narrow_table = 128;

/// \brief Dynamic shared memory of the kernels with a table: the table at a multiple of its size, right
/// behind it the large area, and the small area before the table where the memory of the block does not begin
/// at a multiple, otherwise at the end.
///
/// \tparam Stride  bytes between entries of the table; 0: no table
template <int Stride>
struct table_memory {
  static constexpr std::uint32_t table_bytes = 256 * Stride;
  static constexpr std::uint32_t alignment = Stride == 0 ? 128 : table_bytes;

  std::uint32_t table;
  std::uint32_t small;
  std::uint32_t large;

  /// \brief Bytes to ask for at a launch. Devices since compute capability 9.0 keep the first KB of a block
  /// to themselves.
  [[nodiscard]] static index_t bytes(int compute_capability, index_t small_bytes, index_t large_bytes) {
    const auto end = [&](index_t begin) {
      const index_t before = round_up(begin, alignment) - begin;
      const index_t behind = before >= small_bytes ? 0 : round_up(small_bytes, 128);
      return before + table_bytes + round_up(large_bytes, 128) + behind;
    };
    return compute_capability >= 90 ? std::max(end(0), end(1024)) : end(0);
  }

  __device__ table_memory(std::uint32_t small_bytes, std::uint32_t large_bytes) {
    extern __shared__ uint4 dynamic_shared[];
    const std::uint32_t begin = shared_address(dynamic_shared);
    table = (begin + alignment - 1) / alignment * alignment;
    large = table + table_bytes;
    const std::uint32_t large_end = large + (large_bytes + 127) / 128 * 128;
    const bool before = table - begin >= small_bytes;
    small = before ? begin : large_end;
    std::uint32_t available = 0;
    asm("mov.u32 %0, %%dynamic_smem_size;" : "=r"(available));
    if (large_end + (before ? 0 : small_bytes) > begin + available) __trap();
  }
};

/// \brief Looks up pairs of weights.
///
/// \tparam Exact  pairs of floats instead of pairs rounded to bfloat16
template <int Stride, bool Exact>
struct pair_table {
  std::uint32_t origin;  ///< of this lane
  std::uint32_t map;     ///< of this lane, or of all

  /// \param small  1 KB for the map, if the table is narrow
  __device__ pair_table(std::uint32_t table, std::uint32_t small) {
    const std::uint32_t lane = threadIdx.x % 32;
    origin = table + (Exact ? lane % 16 * 8 : lane * 4);
    map = Stride == wide_table ? table + 128 + lane * 4 : small;
  }

  /// \brief Writes the entries, with all threads of the block; a barrier must follow.
  template <int Threads>
  __device__ static void fill(const frozen_weight& w, std::uint32_t table, std::uint32_t small) {
    static_assert(Threads % 256 == 0 && Threads <= 2048);
    const std::uint32_t entry = threadIdx.x % 256;
    const float even = w.levels[entry % 16], odd = w.levels[entry / 16];
    const std::uint32_t a = Exact ? __float_as_uint(even) : bf16_pair(even, odd);
    const std::uint32_t b = Exact ? __float_as_uint(odd) : a;
    const bool nested = w.layout.scales == scale_kind::double_quant;
    const std::uint32_t value = nested ? __float_as_uint(w.scales.map[entry]) : 0;
    // Each thread begins with another of the eight pieces of its entry, so that neighbours write to different
    // banks.
#pragma unroll
    for (int i = 0; i < 2048 / Threads; ++i) {
      const std::uint32_t piece = (threadIdx.x / 256 * (2048 / Threads) + threadIdx.x + i) % 8;
      const std::uint32_t place = table + entry * Stride + piece * 16;
      store_shared_16(place, a, b, a, b);
      if (Stride == wide_table && nested) store_shared_16(place + 128, value, value, value, value);
    }
    if (Stride == narrow_table && nested && threadIdx.x < 256) store_shared(small + entry * 4, value);
  }

  /// \brief Address of the entry that byte `i` (a constant) of `word` selects.
  __device__ static std::uint32_t address(std::uint32_t origin, std::uint32_t word, int i) {
    if constexpr (Stride == wide_table)
      return __byte_perm(word, origin, 0x7604u | static_cast<std::uint32_t>(i) << 4);
    const std::uint32_t shifted = i == 0 ? word << 7 : word >> (8 * i - 7);
    return (shifted & 0x7F80u) | origin;
  }

  /// \brief Bits of the pair of weights of byte `i` of `word`, before the scale.
  __device__ std::uint32_t rounded(std::uint32_t word, int i) const {
    static_assert(!Exact);
    return load_shared(address(origin, word, i));
  }
  __device__ float2 exact(std::uint32_t word, int i) const {
    static_assert(Exact);
    return load_shared_float2(address(origin, word, i));
  }

  /// \brief Entry of the map of double quantisation that byte `i` of `word` selects.
  __device__ float map_entry(std::uint32_t word, int i) const {
    const std::uint32_t place =
        Stride == wide_table ? address(map, word, i) : map + (word >> 8 * i & 0xFFu) * 4;
    return __uint_as_float(load_shared(place));
  }
};

/// \brief Where a lane of a warp finds scales of a group of tiles.
template <int Units>
struct scale_place {
  index_t entry = 0;  ///< of the first tile and run
  std::uint32_t nested =
      0;  ///< number of the lane's first cell there, counted through the rows of the matrix

  __device__ scale_place(const frozen_weight& w, std::uint32_t tile) {
    const std::uint32_t lane = threadIdx.x % 32;
    entry = (tile * static_cast<std::uint32_t>(w.layout.run_count()) * 32 + lane) * (2 * Units);
    const std::uint32_t row = tile * 16 + lane / 4 + lane % 4 / 2 * 8;
    nested = row * static_cast<std::uint32_t>(w.layout.cell_count()) + lane % 2 * 2;
  }

  /// \brief Goes on by 64 rows.
  __device__ void next_group(const frozen_weight& w) {
    entry += static_cast<std::uint32_t>(w.layout.run_count()) * (4 * 64 * Units);
    nested += static_cast<std::uint32_t>(w.layout.cell_count()) * 64;
  }
};

/// \brief The scales of one tile in a run of four cells, spread over a warp.
///
/// Lane 4 g + t holds those of row g + 8 (t / 2) in cells 2 (t % 2) and 2 (t % 2) + 1 of the run, so that a
/// warp loads one piece of memory and decodes every scale once. The cells of a matrix must be fewer than
/// 2^31.
/// \tparam Units  scales per cell and row: 2 for blocks of 32, otherwise 1
/// \tparam Kind  plain, double_quant, or none: whichever the weight has
template <int Units, scale_kind Kind>
struct run_scales {
  float value[2 * Units];   ///< scales; before `decode` of double-quantised ones, those of the second level
  std::uint32_t codes = 0;  ///< of double-quantised scales

  __device__ static bool plain(const frozen_weight& w) {
    return Kind == scale_kind::none ? w.layout.scales == scale_kind::plain : Kind == scale_kind::plain;
  }

  /// \brief Starts the loads for tile number `i` from `place` on.
  __device__ void load(const frozen_weight& w, const scale_place<Units>& place, int i, std::uint32_t run) {
    const std::uint32_t entry =
        place.entry + (i * static_cast<std::uint32_t>(w.layout.run_count()) + run) * (64 * Units);
    if (plain(w)) {
      const float2* from = reinterpret_cast<const float2*>(w.scales.absmax + entry);
#pragma unroll
      for (int unit = 0; unit < Units; ++unit) {
        value[unit * 2] = from[unit].x;
        value[unit * 2 + 1] = from[unit].y;
      }
      return;
    }
    const std::uint8_t* from = w.scales.codes + entry;
    if constexpr (Units == 1)
      codes = *reinterpret_cast<const std::uint16_t*>(from);
    else
      codes = *reinterpret_cast<const std::uint32_t*>(from);
    const std::uint32_t cells = static_cast<std::uint32_t>(w.layout.cell_count());
    const std::uint32_t first = place.nested + i * 16 * cells + run * 4;
    const std::uint32_t shift =
        static_cast<std::uint32_t>(w.block_shift) + 2;  // from cells to second-level blocks
#pragma unroll
    for (int cell = 0; cell < 2; ++cell) {
      // Padding must not read beyond the last of them.
      const std::uint32_t block = min((first + cell) >> shift, w.last_nested);
      // Where rows are made of whole runs, no second-level block ends inside a run.
      const float nested = cell == 1 && cells % 4 == 0 ? value[0] : w.scales.nested_absmax[block];
#pragma unroll
      for (int unit = 0; unit < Units; ++unit) value[cell * Units + unit] = nested;
    }
  }

  template <class Table>
  __device__ void decode(const frozen_weight& w, const Table& table) {
    if (plain(w)) return;
#pragma unroll
    for (int i = 0; i < 2 * Units; ++i)
      value[i] = nested_scale(table.map_entry(codes, i), value[i], w.scales.offset);
  }

  /// \brief The scale of row g + 8 `lower` of this lane's g, in cell `cell` (0 to 3) of the run.
  __device__ float get(int cell, int unit, int lower) const {
    const float mine = cell % 2 == 0 ? value[unit] : value[Units + unit];
    return __shfl_sync(0xFFFFFFFFu, mine, lower * 2 + cell / 2, 4);
  }
};

}  // namespace pesc::gpu::detail
