// SPDX-License-Identifier: Apache-2.0
// EXPECT: QuantFormat
#include <type_traits>

#include "pesc/moe/config.hpp"

struct layer : pesc::moe_defaults {
  using weight = std::conditional_t<PESC_EXPECT_FAILURE, double, pesc::nf4<64, pesc::plain_scales>>;
};

template <pesc::MoeConfig Config>
constexpr bool accepts = true;

static_assert(accepts<layer>);
