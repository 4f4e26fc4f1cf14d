// SPDX-License-Identifier: Apache-2.0
// EXPECT: Expert
#include <type_traits>

#include "pesc/moe/config.hpp"

struct does_nothing {};

struct layer : pesc::moe_defaults {
  using expert = std::conditional_t<PESC_EXPECT_FAILURE, does_nothing, pesc::adapter_expert<4>>;
};

template <pesc::MoeConfig Config>
constexpr bool accepts = true;

static_assert(accepts<layer>);
