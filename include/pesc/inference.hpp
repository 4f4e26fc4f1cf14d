// SPDX-License-Identifier: Apache-2.0
#pragma once

// The forward half of pesc.hpp: layers and the operations that run them forward. For a program that only uses trained
// layers; it makes its memory with `prepare_inference`, and nothing of backward is compiled.

#include "pesc/cpu/context.hpp"
#include "pesc/cpu/elementwise.hpp"
#include "pesc/cpu/matmul.hpp"
#include "pesc/cpu/noisy_gate.hpp"
#include "pesc/cpu/quantize.hpp"
#include "pesc/cpu/quantized_matmul.hpp"
#include "pesc/cpu/routing.hpp"
#include "pesc/cpu/slots.hpp"
#include "pesc/cpu/switch_gate.hpp"
#include "pesc/cpu/transfer.hpp"
#include "pesc/moe/backend.hpp"
#include "pesc/moe/layer.hpp"
#include "pesc/quant/fp4.hpp"
#include "pesc/quant/nf4.hpp"
#include "pesc/quant/unquantized.hpp"
#include "pesc/version.hpp"

namespace pesc {

static_assert(InferenceBackend<cpu_backend>);

}  // namespace pesc
