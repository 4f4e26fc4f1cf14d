// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/gpu/detail/fragment_kernels.cuh"
#include "pesc/gpu/detail/frozen_source.cuh"

namespace pesc::gpu::detail {

/// \brief Writes the eight weights of each lane, columns 8 t to 8 t + 7 of its row, with 16-byte accesses.
///
/// \param place  of the first of them
/// \param inside  whether the row exists; all lanes of the warp take part
__device__ inline void store_eight(const float (&v)[8], bf16* place, bool inside) {
  if (inside)
    *reinterpret_cast<uint4*>(place) = make_uint4(bf16_pair(v[0], v[1]), bf16_pair(v[2], v[3]),
                                                  bf16_pair(v[4], v[5]), bf16_pair(v[6], v[7]));
}

__device__ inline void store_eight(const float (&v)[8], f16* place, bool inside) {
  if (inside)
    *reinterpret_cast<uint4*>(place) =
        make_uint4(f16_pair(v[0], v[1]), f16_pair(v[2], v[3]), f16_pair(v[4], v[5]), f16_pair(v[6], v[7]));
}

__device__ inline void store_eight(const float (&v)[8], float* place, bool inside) {
  // Neighbouring lanes trade halves, so that four lanes write 64 bytes that follow one another.
  const bool odd = threadIdx.x % 2 == 1;
  float kept[4], traded[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    kept[i] = odd ? v[i + 4] : v[i];
    traded[i] = __shfl_xor_sync(0xFFFFFFFFu, odd ? v[i] : v[i + 4], 1);
  }
  if (!inside) return;
  float4* const pair = reinterpret_cast<float4*>(odd ? place - 8 : place);
  const float4 mine = make_float4(kept[0], kept[1], kept[2], kept[3]);
  const float4 other = make_float4(traded[0], traded[1], traded[2], traded[3]);
  // First the eight weights of the even lane, then those of the odd one.
  pair[odd ? 1 : 0] = odd ? other : mine;
  pair[odd ? 3 : 2] = odd ? mine : other;
}

/// \brief Writes the weights of one record; the lane's columns of its upper and lower row begin at `upper`
/// and `lower`.
template <class Source, class T>
__device__ void store_record(const typename Source::table& table, const typename Source::scales& scales,
                             const uint4& words, int cell, T* upper, bool upper_inside, T* lower,
                             bool lower_inside) {
  const std::uint32_t word[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
  for (int half = 0; half < 2; ++half)
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      const float scale = scales.get(cell, Source::units == 1 ? 0 : half, row);
      float v[8];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float2 pair = table.exact(word[half * 2 + i / 2], row + i % 2 * 2);
        v[i * 2] = __fmul_rn(pair.x, scale);
        v[i * 2 + 1] = __fmul_rn(pair.y, scale);
      }
      store_eight(v, (row == 0 ? upper : lower) + half * 32, row == 0 ? upper_inside : lower_inside);
    }
}

/// \brief A warp decodes a tile over four cells and goes on to the next. Needs whole cells and `out` at
/// multiples of 16 bytes.
template <int Threads, class Source, class T>
__global__ void __launch_bounds__(Threads, 1)
    dequantize_kernel(const __grid_constant__ frozen_weight w, matrix_view<T, device_space> out) {
  const table_memory<Source::stride> memory(Source::map_bytes, 0);
  Source::template prepare<Threads>(w, memory);
  __syncthreads();
  const typename Source::table table(memory.table, memory.small);
  const std::uint32_t lane = threadIdx.x % 32;
  const std::uint32_t cell_count = static_cast<std::uint32_t>(w.layout.cell_count());
  const std::uint32_t runs = (cell_count + 3) / 4,
                      items = static_cast<std::uint32_t>(w.layout.tile_count()) * runs;
  const auto for_items = [&](auto whole) {
    for (std::uint32_t item = blockIdx.x * (Threads / 32) + warp_of_block(); item < items;
         item += gridDim.x * (Threads / 32)) {
      // In the order of memory: [group][run][tile].
      const std::uint32_t group = item / 4 / runs, run = item / 4 - group * runs, tile = group * 4 + item % 4;
      if ((run * 4 + 4 <= cell_count && tile * 16 + 16 <= out.rows) != whole.value) continue;
      const std::uint8_t* record =
          w.codes + (index_t{group} * cell_count + run * 4) * (4 * 512) + (item % 4 * 512 + lane * 16);
      const std::uint32_t row = tile * 16 + lane / 4;
      T* upper = out.data + row * out.stride + (run * 256 + lane % 4 * 8);
      T* lower = upper + 8 * out.stride;
      typename Source::scales scales;
      scales.load(w, typename Source::place(w, tile), 0, run);
      if constexpr (whole.value) {
        uint4 words[4];
#pragma unroll
        for (int cell = 0; cell < 4; ++cell) words[cell] = load_once(record + cell * 4 * 512);
        scales.decode(w, table);
#pragma unroll
        for (int cell = 0; cell < 4; ++cell)
          store_record<Source>(table, scales, words[cell], cell, upper + cell * 64, true, lower + cell * 64,
                               true);
      } else {
        scales.decode(w, table);
#pragma unroll 1
        for (std::uint32_t cell = 0; cell < 4 && run * 4 + cell < cell_count; ++cell)
          store_record<Source>(table, scales, load_once(record + cell * 4 * 512), static_cast<int>(cell),
                               upper + cell * 64, row < out.rows, lower + cell * 64, row + 8 < out.rows);
      }
    }
  };
  for_items(std::true_type{});
  if (cell_count % 4 != 0 || out.rows % 64 != 0) for_items(std::false_type{});
}

/// \brief Value of (`row`, `k`), of any kind of element and any shape.
__device__ inline float stored_weight(const frozen_weight& w, index_t row, index_t k) {
  const index_t record = w.layout.offset(row / 16, k / 64);
  if (w.layout.element == element_kind::code4) {
    const std::uint8_t byte = w.codes[record + fragment_layout::code_byte(row % 16, k % 64)];
    return __fmul_rn(w.levels[byte >> fragment_layout::code_shift(k) & 15], w.scale(row, k));
  }
  const index_t place = w.layout.number(row % 16, k % 64);
  if (w.layout.element == element_kind::f32) return reinterpret_cast<const float*>(w.codes + record)[place];
  if (w.layout.element == element_kind::bf16)
    return to_float(reinterpret_cast<const bf16*>(w.codes + record)[place]);
  return to_float(reinterpret_cast<const f16*>(w.codes + record)[place]);
}

/// \brief One weight a thread.
template <int Threads, class T>
__global__ void __launch_bounds__(Threads)
    dequantize_any_kernel(const __grid_constant__ frozen_weight w, matrix_view<T, device_space> out) {
  const index_t i = blockIdx.x * index_t{Threads} + threadIdx.x;
  if (i >= out.size()) return;
  const index_t row = i / out.cols, k = i % out.cols;
  out(row, k) = from_float<T>(stored_weight(w, row, k));
}

/// \brief One weight of a checkpoint a thread.
template <int Threads, class T>
__global__ void __launch_bounds__(Threads)
    dequantize_blocks_kernel(const __grid_constant__ format_info info, const std::uint8_t* codes,
                             scale_tensors<device_space> scales, matrix_view<T, device_space> out) {
  const index_t i = blockIdx.x * index_t{Threads} + threadIdx.x;
  if (i >= out.size()) return;
  float value = 0.0f;
  if (info.element == element_kind::code4)
    value =
        __fmul_rn(info.levels[checkpoint_code(codes, i)], decode_scale(info.scales, scales, i / info.block));
  else if (info.element == element_kind::f32)
    value = reinterpret_cast<const float*>(codes)[i];
  else if (info.element == element_kind::bf16)
    value = to_float(reinterpret_cast<const bf16*>(codes)[i]);
  else
    value = to_float(reinterpret_cast<const f16*>(codes)[i]);
  out(i / out.cols, i % out.cols) = from_float<T>(value);
}

}  // namespace pesc::gpu::detail
