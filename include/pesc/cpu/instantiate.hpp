// SPDX-License-Identifier: Apache-2.0
#pragma once

// The operations of the CPU backend for its default context, compiled once: include this, before anything else, in one unit
// of a program whose other units define PESC_COMPILED. They then compile in a fraction of the time. All units need the same
// flags of the processor (-march), or the linker names what is missing.

#if defined(PESC_CPU_INSTANCE)
#error "pesc: include pesc/cpu/instantiate.hpp before any other header of pesc"
#endif
#define PESC_INSTANTIATE 1

#include "pesc/cpu/attention.hpp"
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
