// SPDX-License-Identifier: Apache-2.0
// EXPECT: no matching function|could not convert|no viable conversion|conversion from
// EXPECT: device_space
#include <type_traits>

#include "pesc/core/views.hpp"

void runs_on_the_device(pesc::matrix_view<float, pesc::device_space> x);

void caller(float* data) {
  using space = std::conditional_t<PESC_EXPECT_FAILURE, pesc::host_space, pesc::device_space>;
  runs_on_the_device(pesc::matrix_view<float, space>{data, 2, 3});
}
