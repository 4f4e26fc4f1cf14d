// SPDX-License-Identifier: Apache-2.0
#include "pesc/core/visit.hpp"

#include <doctest/doctest.h>

#include "support/message_of.hpp"

namespace {

using namespace pesc;

TEST_CASE("visit_value calls with the constant that equals the value, once") {
  int calls = 0;
  int seen = 0;
  visit_value<8, 16, 32>(16, [&](auto n) {
    static_assert(decltype(n)::value >= 8);
    ++calls;
    seen = n;
  });
  CHECK(calls == 1);
  CHECK(seen == 16);
}

TEST_CASE("a value that is not listed is named") {
  CHECK(
      support::contains(support::message_of<shape_error>([] { visit_value<8, 16>(12, [](auto) {}); }), "12"));
}

}  // namespace
