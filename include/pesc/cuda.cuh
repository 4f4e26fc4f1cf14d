// SPDX-License-Identifier: Apache-2.0
#pragma once

// The layers and the CUDA backend, for units that nvcc compiles. The CPU backend is not included: a unit that uses both
// includes pesc.hpp too.

#if !defined(__CUDACC__)
#error "pesc: cuda.cuh is for units that nvcc compiles; others include pesc.hpp"
#endif

#include "pesc/gpu/attention.cuh"
#include "pesc/gpu/context.cuh"
#include "pesc/gpu/elementwise.cuh"
#include "pesc/gpu/loss.cuh"
#include "pesc/gpu/matmul.cuh"
#include "pesc/gpu/noisy_gate.cuh"
#include "pesc/gpu/norm.cuh"
#include "pesc/gpu/optimizer.cuh"
#include "pesc/gpu/quantize.cuh"
#include "pesc/gpu/quantized_matmul.cuh"
#include "pesc/gpu/reduce.cuh"
#include "pesc/gpu/rope.cuh"
#include "pesc/gpu/routing.cuh"
#include "pesc/gpu/slots.cuh"
#include "pesc/gpu/switch_gate.cuh"
#include "pesc/gpu/transfer.cuh"
#include "pesc/moe/backend.hpp"
#include "pesc/moe/dense_layer.hpp"
#include "pesc/moe/layer.hpp"
#include "pesc/moe/noisy_top_k_router.hpp"
#include "pesc/moe/switch_router.hpp"
#include "pesc/nn/schedule.hpp"
#include "pesc/quant/fp4.hpp"
#include "pesc/quant/nf4.hpp"
#include "pesc/quant/unquantized.hpp"
#include "pesc/version.hpp"

namespace pesc {

static_assert(ModelBackend<cuda_backend>);

}  // namespace pesc
