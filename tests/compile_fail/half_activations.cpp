// SPDX-License-Identifier: Apache-2.0
// EXPECT: activation
#include <type_traits>

#include "pesc/moe/config.hpp"

struct layer : pesc::moe_defaults {
  using activation = std::conditional_t<PESC_EXPECT_FAILURE, pesc::f16, pesc::bf16>;
};

template <pesc::MoeConfig Config>
constexpr bool accepts = true;

static_assert(accepts<layer>);
