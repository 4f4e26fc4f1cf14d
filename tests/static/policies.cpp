// SPDX-License-Identifier: Apache-2.0
// What holds at compile time: concepts of shipped policies, views that are plain data, sizes that cost nothing.

#include <type_traits>

#include "pesc/pesc.hpp"

namespace {

using namespace pesc;

// Views are passed by value to kernels.
static_assert(std::is_trivially_copyable_v<vector_view<float>>);
static_assert(std::is_trivially_copyable_v<matrix_view<const bf16, device_space>>);
static_assert(std::is_trivially_copyable_v<batch_view<float>>);
static_assert(std::is_trivially_copyable_v<quantized_view<nf4<>, panels>>);
static_assert(std::is_trivially_copyable_v<slot_groups<>>);
static_assert(sizeof(vector_view<float>) == 16);
static_assert(sizeof(matrix_view<float>) == 32);

// A view to write is one to read, never the other way, and spaces do not mix.
static_assert(std::is_convertible_v<matrix_view<float>, matrix_view<const float>>);
static_assert(!std::is_convertible_v<matrix_view<const float>, matrix_view<float>>);
static_assert(!std::is_convertible_v<matrix_view<float>, matrix_view<float, device_space>>);
static_assert(!std::is_convertible_v<vector_view<float, device_space>, vector_view<float>>);

// Owners move and do not copy.
static_assert(!std::is_copy_constructible_v<buffer<float>> &&
              std::is_nothrow_move_constructible_v<buffer<float>>);
static_assert(!std::is_copy_constructible_v<moe_layer<moe_defaults, cpu_backend>>);
static_assert(std::is_move_constructible_v<moe_layer<moe_defaults, cpu_backend>>);
static_assert(!std::is_copy_constructible_v<cpu_backend> && !std::is_move_constructible_v<cpu_backend>);

// A number that the type fixes takes no room.
static_assert(std::is_empty_v<extent<8>> && sizeof(extent<dynamic>) == sizeof(index_t));
static_assert(sizeof(top_k_router<2>) < sizeof(top_k_router<dynamic>));
static_assert(std::is_empty_v<gated_ffn<silu>> && std::is_empty_v<adapter_expert<64>>);

// Formats keep their promises before the program runs.
static_assert(nf4<>::encode(0.0f) == 7 && nf4<>::level(15) == 1.0f && nf4<>::level(0) == -1.0f);
static_assert(panel_layout(nf4<64, double_quant<>>::info(), 64, 64).bytes() == 64 * 64 / 2 + 64);
static_assert(panel_layout(nf4<64>::info(), 65, 1).panel_count() == 2);
static_assert(to_float(to_bf16(1.0f)) == 1.0f && to_float(to_f16(65504.0f)) == 65504.0f);

// Backends with everything fixed are backends too.
using fixed = cpu::context<cpu::inline_executor, cpu::fixed_isa<cpu::isa::scalar>>;
static_assert(TrainingBackend<fixed> && ModelBackend<fixed>);
static_assert(!InferenceBackend<int>);
static_assert(std::is_constructible_v<moe_layer<moe_defaults, fixed>, fixed&, const moe_shape&>);

}  // namespace
