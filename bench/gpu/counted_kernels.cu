// SPDX-License-Identifier: Apache-2.0

// The kernels that `counts` looks into, and nothing else: compiled to machine code for the devices of
// interest.

#include "pesc/gpu/optimizer.cuh"
#include "pesc/gpu/quantize.cuh"
#include "pesc/gpu/quantized_matmul.cuh"

namespace {

using namespace pesc;
using namespace pesc::gpu::detail;

using coarse = code_source<wide_table, 1, scale_kind::double_quant, false>;
using exact = code_source<wide_table, 1, scale_kind::double_quant, true>;

}  // namespace

[[maybe_unused]] const void* const counted_kernels[] = {
    reinterpret_cast<const void*>(&pack_codes_kernel<256>),
    reinterpret_cast<const void*>(&unpack_codes_kernel<256>),
    reinterpret_cast<const void*>(&dequantize_kernel<512, exact, bf16>),
    reinterpret_cast<const void*>(&frozen_stream_kernel<coarse, 4, 1>),
    reinterpret_cast<const void*>(&frozen_stream_kernel<coarse, 4, 2>),
    reinterpret_cast<const void*>(&frozen_stream_kernel<coarse, 2, 4>),
    reinterpret_cast<const void*>(&frozen_tile_kernel<exact, 4, 1>),
    reinterpret_cast<const void*>(&frozen_tile_kernel<exact, 4, 2>),
    reinterpret_cast<const void*>(&frozen_transposed_kernel<exact, 64>),
    reinterpret_cast<const void*>(&frozen_transposed_kernel<exact, 256>),
    reinterpret_cast<const void*>(&adamw_step_kernel<256, 4>),
};
