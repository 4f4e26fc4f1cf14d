// SPDX-License-Identifier: Apache-2.0
#include "pesc/nn/attention_types.hpp"

#include <type_traits>

#include <doctest/doctest.h>

namespace {

using namespace pesc;

TEST_CASE("spans and shapes are plain numbers that a GPU can be given") {
  static_assert(std::is_trivially_copyable_v<attention_span> && std::is_aggregate_v<attention_span>);
  static_assert(std::is_trivially_copyable_v<attention_shape> && std::is_aggregate_v<attention_shape>);
  const attention_span span{3, 9, 3};
  CHECK(span.past == 0);
  CHECK(attention_shape{}.head_dim == 0);
}

}  // namespace
