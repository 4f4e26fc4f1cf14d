// SPDX-License-Identifier: Apache-2.0
// EXPECT: Router
#include <type_traits>

#include "pesc/moe/config.hpp"

struct picks_nothing {};

struct layer : pesc::moe_defaults {
  using router = std::conditional_t<PESC_EXPECT_FAILURE, picks_nothing, pesc::top_k_router<1>>;
};

template <pesc::MoeConfig Config>
constexpr bool accepts = true;

static_assert(accepts<layer>);
