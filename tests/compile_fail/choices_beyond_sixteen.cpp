// SPDX-License-Identifier: Apache-2.0
// EXPECT: pesc: top_k_router keeps 1 to 16 experts
#include "pesc/moe/route.hpp"

constexpr int top_k = pesc::top_k_router < PESC_EXPECT_FAILURE ? 17 : 16 > ::top_k;
