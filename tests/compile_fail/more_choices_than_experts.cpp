// SPDX-License-Identifier: Apache-2.0
// EXPECT: top_k <= C::experts|8 <= 4
// EXPECT: chosen_by_mistake
#include "pesc/moe/config.hpp"

struct chosen_by_mistake : pesc::moe_defaults {
  static constexpr int experts = 4;
  using router = pesc::top_k_router<PESC_EXPECT_FAILURE ? 8 : 2>;
};

template <pesc::MoeConfig Config>
constexpr bool accepts = true;

static_assert(accepts<chosen_by_mistake>);
