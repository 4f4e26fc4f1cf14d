// SPDX-License-Identifier: Apache-2.0
#include "pesc/core/extent.hpp"

#include <type_traits>

#include <doctest/doctest.h>

#include "support/message_of.hpp"

namespace {

using namespace pesc;

TEST_CASE("a constant size takes no storage and refuses another value") {
  struct sizes {
    [[no_unique_address]] extent<64> fixed;
    index_t other;
  };
  static_assert(sizeof(sizes) == sizeof(index_t));
  static_assert(extent<64>::value() == 64);
  CHECK(extent<64>(64).value() == 64);
  const std::string message = support::message_of<shape_error>([] { extent<64>(65); });
  CHECK(support::contains(message, "65"));
  CHECK(support::contains(message, "64"));
}

TEST_CASE("a dynamic size holds what it is given") {
  CHECK(extent<dynamic>(172).value() == 172);
  CHECK(extent<dynamic>().value() == 0);
}

}  // namespace
