// SPDX-License-Identifier: Apache-2.0
#include "pesc/core/error.hpp"

#include <doctest/doctest.h>

namespace {

using namespace pesc;

TEST_CASE("concat puts texts and numbers together") {
  CHECK(pesc::detail::concat("size ", 3, ", ", -4L, ' ', 2.5, " of ", std::string("x"),
                             std::string_view("yz")) == "size 3, -4 2.5 of xyz");
  CHECK(pesc::detail::concat() == "");
  CHECK(pesc::detail::concat(1e-9f) == "1e-09");
  CHECK(pesc::detail::concat(std::size_t{18446744073709551615u}) == "18446744073709551615");
}

TEST_CASE("a failed expectation names what was found; one that holds evaluates nothing") {
  int evaluated = 0;
  const auto number = [&] { return ++evaluated; };
  PESC_EXPECTS(true, "never ", number());
  CHECK(evaluated == 0);
  try {
    PESC_EXPECTS(1 > 2, "found ", 17);
    CHECK(false);
  } catch (const shape_error& e) {
    CHECK(std::string(e.what()) == "found 17");
  }
}

TEST_CASE("every error is a pesc::error and a std::runtime_error") {
  CHECK_THROWS_AS(pesc::detail::raise<format_error>("x"), error);
  CHECK_THROWS_AS(pesc::detail::raise<io_error>("x"), std::runtime_error);
  CHECK_THROWS_AS(pesc::detail::raise<numeric_error>("x"), numeric_error);
}

}  // namespace
