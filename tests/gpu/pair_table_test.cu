// SPDX-License-Identifier: Apache-2.0
#include <bit>
#include <vector>

#include <doctest/doctest.h>

#include "gpu/device.hpp"
#include "pesc/gpu/detail/pair_table.cuh"
#include "pesc/gpu/detail/tuning.cuh"
#include "pesc/gpu/launch.cuh"
#include "pesc/quant/fp4.hpp"
#include "pesc/quant/nf4.hpp"

namespace {

using namespace pesc;
using namespace pesc::gpu::detail;

/// Looks up every byte with every lane, and every entry of the map; where the areas lie goes behind the
/// results.
///
/// `Before` bytes of other memory move the begin of the dynamic one, as a device does that keeps some to
/// itself.
template <int Stride, bool Exact, int Before>
__global__ void lookup_kernel(frozen_weight w, std::uint32_t small, std::uint32_t large, float2* pairs,
                              float* map, std::uint32_t* places) {
  __shared__ volatile std::uint8_t before[Before == 0 ? 1 : Before];
  if (Before != 0) before[threadIdx.x] = 1;
  const table_memory<Stride> memory(small, large);
  using table_type = pair_table<Stride, Exact>;
  table_type::template fill<256>(w, memory.table, memory.small);
  __syncthreads();
  const table_type table(memory.table, memory.small);
  const std::uint32_t lane = threadIdx.x % 32;
  for (std::uint32_t byte = threadIdx.x / 32; byte < 256; byte += 8) {
    const std::uint32_t word = byte << 8 * (byte % 4) | 0x5A5A5A5Au & ~(0xFFu << 8 * (byte % 4));
    float2 pair;
    if constexpr (Exact) {
      pair = byte % 4 == 0   ? table.exact(word, 0)
             : byte % 4 == 1 ? table.exact(word, 1)
             : byte % 4 == 2 ? table.exact(word, 2)
                             : table.exact(word, 3);
    } else {
      const std::uint32_t bits = byte % 4 == 0   ? table.rounded(word, 0)
                                 : byte % 4 == 1 ? table.rounded(word, 1)
                                 : byte % 4 == 2 ? table.rounded(word, 2)
                                                 : table.rounded(word, 3);
      pair = make_float2(__uint_as_float(bits << 16), __uint_as_float(bits & 0xFFFF0000u));
    }
    pairs[byte * 32 + lane] = pair;
    map[byte * 32 + lane] = table.map_entry(byte << 16, 2);
  }
  if (threadIdx.x == 0) {
    places[0] = memory.table;
    places[1] = memory.small;
    places[2] = memory.large;
  }
}

template <int Stride, bool Exact, int Before>
void check_table(const format_info& info, std::uint32_t small, std::uint32_t large) {
  cuda_backend ctx;
  support::on_device<float> map_values(ctx, std::vector<float>(dynamic_map().begin(), dynamic_map().end()));
  quantized_view<any_format, fragments, device_space> view(info, nullptr, {}, 64, 64);
  view.scales.map = map_values.data();
  support::on_device<float2> pairs(ctx, 256 * 32);
  support::on_device<float> map(ctx, 256 * 32);
  support::on_device<std::uint32_t> places(ctx, 3);
  gpu::launch_shape shape = gpu::grid_1d(256);
  shape.shared_bytes = table_memory<Stride>::bytes(90, small, large);
  gpu::launch(ctx, "lookup_kernel", lookup_kernel<Stride, Exact, Before>, shape, frozen_weight(view), small,
              large, pairs.data(), map.data(), places.data());
  const auto pair_values = pairs.values();
  const auto found = map.values();
  index_t wrong = 0;
  for (std::size_t byte = 0; byte < 256; ++byte)
    for (std::size_t lane = 0; lane < 32; ++lane) {
      const float even = info.levels[byte % 16], odd = info.levels[byte / 16];
      const float2 pair = pair_values[byte * 32 + lane];
      wrong += pair.x != (Exact ? even : to_float(to_bf16(even))) ||
               pair.y != (Exact ? odd : to_float(to_bf16(odd)));
      wrong += found[byte * 32 + lane] != dynamic_map()[byte];
    }
  CHECK(wrong == 0);
  const auto place = places.values();
  CHECK(place[0] % (256 * Stride) == 0);
  CHECK(place[2] == place[0] + 256 * Stride);
  CHECK((place[1] + small <= place[0] || place[1] >= place[2] + large));
  CHECK(place[1] % 16 == 0);
}

TEST_SUITE("gpu/pair_table") {
  TEST_CASE("every byte and every lane find their pair, wherever the memory of a block begins") {
    for (const format_info& info : {nf4<64, double_quant<>>::info(), fp4<64, double_quant<>>::info()}) {
      check_table<wide_table, false, 0>(info, 1024, 4096);
      check_table<wide_table, true, 0>(info, 1024, 4096);
      check_table<wide_table, false, 1024>(info, 1024, 4096);
      check_table<wide_table, true, 1024>(info, 1024, 100);
      check_table<narrow_table, false, 0>(info, 1024, 4096);
      check_table<narrow_table, true, 1024>(info, 2048, 4096);
      check_table<narrow_table, true, 1024>(info, 40000, 64);
    }
  }

  TEST_CASE("the kernels fit into the shared memory of the devices they are meant for") {
    const auto plans = [&](int compute_capability, int shared_bytes, auto kind) {
      using exact = typename decltype(kind)::exact;
      using coarse = typename decltype(kind)::coarse;
      gpu::device_limits limits;
      limits.compute_capability = compute_capability;
      limits.multiprocessors = 84;
      limits.shared_bytes = shared_bytes;
      index_t without = 0;
      for (const index_t cols : {256, 896, 4096, 11008})
        for (const index_t rows : {64, 4096, 11008, 28672})
          for (index_t tokens = 1; tokens <= 8; ++tokens)
            without += plan_stream < coarse,
                coarse::scaled ? 4 : 1 > (limits, rows, cols, tokens).slices == 0;
      CHECK(without == 0);
      using tile = tile_memory<exact, exact::scaled ? 4 : 2, 1>;
      CHECK(table_memory<exact::stride>::bytes(compute_capability, tile::small_bytes, tile::large_bytes) <=
            shared_bytes);
      using transposed = transposed_memory<exact, 64>;
      CHECK(table_memory<exact::stride>::bytes(compute_capability, transposed::small_bytes,
                                               transposed::large_bytes) <= shared_bytes);
    };
    for (const int compute_capability : {86, 89, 120}) {
      plans(compute_capability, 99 * 1024, code_kind<narrow_table, 1, scale_kind::none>{});
      plans(compute_capability, 99 * 1024, number_kind<bf16>{});
    }
    for (const auto [compute_capability, kilobytes] : {std::pair{80, 163}, {90, 227}, {100, 227}}) {
      CHECK(table_stride(compute_capability) == wide_table);
      plans(compute_capability, kilobytes * 1024, code_kind<wide_table, 1, scale_kind::double_quant>{});
      using large = transposed_memory<code_source<wide_table, 1, scale_kind::double_quant, true>, 256>;
      CHECK(table_memory<wide_table>::bytes(compute_capability, large::small_bytes, large::large_bytes) <=
            kilobytes * 1024);
      using shared_depth = tile_memory<code_source<wide_table, 1, scale_kind::double_quant, true>, 4, 2>;
      CHECK(table_memory<wide_table>::bytes(compute_capability, shared_depth::small_bytes,
                                            shared_depth::large_bytes) <= kilobytes * 1024);
    }
  }
}

}  // namespace
