// SPDX-License-Identifier: Apache-2.0
// EXPECT: pesc: adapter rank must be positive
#include "pesc/moe/experts.hpp"

using expert = pesc::adapter_expert<PESC_EXPECT_FAILURE ? 0 : 4>;

constexpr int rank = expert::rank;
