// SPDX-License-Identifier: Apache-2.0
#pragma once

// Everything that a plain C++20 compiler can use: the layers and the CPU backend.

#include "pesc/cpu/attention.hpp"
#include "pesc/cpu/context.hpp"
#include "pesc/cpu/elementwise.hpp"
#include "pesc/cpu/loss.hpp"
#include "pesc/cpu/matmul.hpp"
#include "pesc/cpu/noisy_gate.hpp"
#include "pesc/cpu/norm.hpp"
#include "pesc/cpu/optimizer.hpp"
#include "pesc/cpu/quantize.hpp"
#include "pesc/cpu/quantized_matmul.hpp"
#include "pesc/cpu/reduce.hpp"
#include "pesc/cpu/rope.hpp"
#include "pesc/cpu/routing.hpp"
#include "pesc/cpu/slots.hpp"
#include "pesc/cpu/switch_gate.hpp"
#include "pesc/cpu/transfer.hpp"
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

static_assert(ModelBackend<cpu_backend>);

}  // namespace pesc
