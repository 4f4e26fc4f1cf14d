// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/gpu/detail/pair_table.cuh"
#include "pesc/quant/unquantized.hpp"

// Where the tensor-core products take their left operands from: 4-bit codes and a table, or numbers. A source
// gives the registers of a lane for one step of a record; `record` is what the lane loads of it beforehand.

namespace pesc::gpu::detail {

/// \brief 4-bit codes.
///
/// \tparam Units  scales per cell and row
/// \tparam Kind  as of `run_scales`
/// \tparam Exact  registers are products of code and scale in float, rounded once; otherwise bare codes
/// rounded to bfloat16
template <int Stride, int Units, scale_kind Kind, bool Exact>
struct code_source {
  static constexpr element_kind element = element_kind::code4;
  static constexpr bool scaled = true;
  static constexpr bool exact = Exact;
  static constexpr int units = Units;
  static constexpr int stride = Stride;
  static constexpr int map_bytes = Stride == wide_table ? 0 : 1024;
  static constexpr int record_bytes = 512;
  using scales = run_scales<Units, Kind>;
  using place = scale_place<Units>;
  using table = pair_table<Stride, Exact>;

  struct record {
    uint4 words;
    /// \param bytes  of the record, and 16 bytes for each lane before this one
    __device__ void load(const std::uint8_t* bytes) { words = load_once(bytes); }
    __device__ std::uint32_t word(int step) const {
      return step == 0 ? words.x : step == 1 ? words.y : step == 2 ? words.z : words.w;
    }
  };

  table pairs;

  /// \brief With all threads of the block; a barrier must follow.
  template <int Threads>
  __device__ static void prepare(const frozen_weight& w, const table_memory<Stride>& memory) {
    table::template fill<Threads>(w, memory.table, memory.small);
  }
  __device__ explicit code_source(const table_memory<Stride>& memory) : pairs(memory.table, memory.small) {}

  /// \brief Registers of `step`, rows of the lane times `upper` and `lower`.
  __device__ void fragment(std::uint32_t (&a)[4], const record& from, int step, float upper,
                           float lower) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if constexpr (Exact) {
        const float2 pair = pairs.exact(from.word(step), i);
        const float scale = i % 2 == 0 ? upper : lower;
        a[i] = bf16_pair(__fmul_rn(pair.x, scale), __fmul_rn(pair.y, scale));
      } else {
        a[i] = pairs.rounded(from.word(step), i);
      }
    }
  }
};

/// \brief Numbers; single and half precision are rounded to bfloat16.
template <class T>
struct number_source {
  static constexpr element_kind element = unquantized<T>::info().element;
  static constexpr bool scaled = false;
  static constexpr bool exact = true;
  static constexpr int units = 1;
  static constexpr int stride = 0;
  static constexpr int map_bytes = 0;
  static constexpr int record_bytes = 1024 * sizeof(T);
  static constexpr int pieces = static_cast<int>(sizeof(T)) / 2;  // 16 bytes each, of one step

  struct place {
    __device__ place(const frozen_weight&, std::uint32_t) {}
    __device__ void next_group(const frozen_weight&) {}
  };
  struct scales {
    __device__ void load(const frozen_weight&, const place&, int, std::uint32_t) {}
    template <class Table>
    __device__ void decode(const frozen_weight&, const Table&) {}
    __device__ float get(int, int, int) const { return 1.0f; }
  };

  struct record {
    uint4 words[4 * pieces];
    __device__ void load(const std::uint8_t* bytes) {
#pragma unroll
      for (int i = 0; i < 4 * pieces; ++i) words[i] = load_once(bytes + i * 512);
    }
  };

  struct no_table {
  } pairs;

  template <int Threads>
  __device__ static void prepare(const frozen_weight&, const table_memory<0>&) {}
  __device__ explicit number_source(const table_memory<0>&) {}

  __device__ void fragment(std::uint32_t (&a)[4], const record& from, int step, float, float) const {
    const uint4 first = from.words[step * pieces];
    if constexpr (std::is_same_v<T, bf16>) {
      a[0] = first.x;
      a[1] = first.y;
      a[2] = first.z;
      a[3] = first.w;
    } else if constexpr (std::is_same_v<T, f16>) {
      const auto rounded = [](std::uint32_t pair) {
        return bf16_pair(to_float(f16{static_cast<std::uint16_t>(pair)}),
                         to_float(f16{static_cast<std::uint16_t>(pair >> 16)}));
      };
      a[0] = rounded(first.x);
      a[1] = rounded(first.y);
      a[2] = rounded(first.z);
      a[3] = rounded(first.w);
    } else {
      const uint4 second = from.words[step * pieces + 1];
      const auto rounded = [](std::uint32_t low, std::uint32_t high) {
        return bf16_pair(__uint_as_float(low), __uint_as_float(high));
      };
      a[0] = rounded(first.x, first.y);
      a[1] = rounded(first.z, first.w);
      a[2] = rounded(second.x, second.y);
      a[3] = rounded(second.z, second.w);
    }
  }
};

/// \brief True where sources give a weight: whole cells in a row, blocks of a power of 2, cells that 32 bits
/// count.
[[nodiscard]] inline bool has_source(const frozen_weight& w) {
  const fragment_layout& l = w.layout;
  if (l.cols % fragment_layout::cell_cols != 0 || l.tile_count() * 16 * l.cell_count() >= index_t{1} << 31)
    return false;
  return l.element != element_kind::code4 || (l.scales_by_cell() && w.block_shift >= 5);
}

/// \brief The sources of one kind of weight: exact ones, and where these are codes, those without scales.
template <class Exact, class Coarse = Exact>
struct source_kind {
  using exact = Exact;
  using coarse = Coarse;
};

template <int Stride, int Units, scale_kind Kind>
using code_kind =
    source_kind<code_source<Stride, Units, Kind, true>, code_source<Stride, Units, Kind, false>>;

template <class T>
using number_kind = source_kind<number_source<T>>;

/// \brief Calls `f` with the `source_kind` of a weight. Only what `Format` can be is compiled.
///
/// \param stride  of the table of pairs
template <QuantFormat Format, class F>
void with_source(const frozen_weight& w, int stride, F&& f) {
  const auto coded = [&](auto units, auto kind) {
    if (stride == wide_table)
      f(code_kind<wide_table, units.value, kind.value>{});
    else
      f(code_kind<narrow_table, units.value, kind.value>{});
  };
  if constexpr (std::is_same_v<Format, any_format>) {
    constexpr std::integral_constant<scale_kind, scale_kind::none> any{};
    if (w.layout.element == element_kind::bf16)
      f(number_kind<bf16>{});
    else if (w.layout.element == element_kind::f16)
      f(number_kind<f16>{});
    else if (w.layout.element == element_kind::f32)
      f(number_kind<float>{});
    else if (w.layout.units_per_cell() == 1)
      coded(std::integral_constant<int, 1>{}, any);
    else
      coded(std::integral_constant<int, 2>{}, any);
  } else {
    constexpr format_info info = Format::info();
    if constexpr (info.element == element_kind::bf16)
      f(number_kind<bf16>{});
    else if constexpr (info.element == element_kind::f16)
      f(number_kind<f16>{});
    else if constexpr (info.element == element_kind::f32)
      f(number_kind<float>{});
    else
      coded(std::integral_constant < int, info.block<64 ? 2 : 1>{},
            std::integral_constant<scale_kind, info.scales>{});
  }
}

}  // namespace pesc::gpu::detail
