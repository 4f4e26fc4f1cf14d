// SPDX-License-Identifier: Apache-2.0
// EXPECT: pesc: nf4 block must be a power of two from 32 to 4096 weights
#include "pesc/quant/nf4.hpp"

constexpr int bits = pesc::nf4 < PESC_EXPECT_FAILURE ? 48 : 64 > ::bits;
