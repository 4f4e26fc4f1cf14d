// SPDX-License-Identifier: Apache-2.0
// EXPECT: could not convert|no viable conversion|no matching function|conversion from
#include <type_traits>

#include "pesc/core/views.hpp"

void writes(pesc::matrix_view<float> x);

void caller(float* data) {
  using element = std::conditional_t<PESC_EXPECT_FAILURE, const float, float>;
  writes(pesc::matrix_view<element>{data, 2, 3});
}
