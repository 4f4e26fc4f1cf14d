// SPDX-License-Identifier: Apache-2.0
#include "pesc/io/element_type.hpp"

#include <cstdint>
#include <limits>
#include <vector>

#include <doctest/doctest.h>

using pesc::element_type;
using pesc::index_t;

TEST_SUITE("io/element_type") {
  TEST_CASE("names and types belong together") {
    for (int i = 0; i < static_cast<int>(element_type::unknown); ++i) {
      const auto type = static_cast<element_type>(i);
      CHECK(pesc::element_type_named(name_of(type)) == type);
      CHECK(pesc::bits_of(type) > 0);
    }
    CHECK(pesc::element_type_named("F128") == element_type::unknown);
    CHECK(pesc::element_type_named("f32") == element_type::unknown);
    CHECK(name_of(element_type::bf16) == "BF16");
    CHECK(pesc::bits_of(element_type::f6_e2m3) == 6);
    CHECK(pesc::element_type_of<std::int64_t> == element_type::i64);
    CHECK(pesc::element_type_of<char> == element_type::unknown);
  }

  TEST_CASE("sizes are exact or absent, never wrapped") {
    constexpr index_t big = index_t{1} << 32;
    CHECK(pesc::checked_count(std::vector<index_t>{}) == 1);
    CHECK(pesc::checked_count(std::vector<index_t>{2, 3, 4}) == 24);
    CHECK(pesc::checked_count(std::vector<index_t>{2, 0, 4}) == 0);
    CHECK_FALSE(pesc::checked_count(std::vector<index_t>{big, big}).has_value());
    CHECK_FALSE(pesc::checked_count(std::vector<index_t>{0, big, big}).has_value());
    CHECK_FALSE(pesc::checked_count(std::vector<index_t>{-1}).has_value());
    CHECK(pesc::checked_bytes(element_type::bf16, std::vector<index_t>{3}) == 6);
    CHECK(pesc::checked_bytes(element_type::f4, std::vector<index_t>{2}) == 1);
    CHECK_FALSE(pesc::checked_bytes(element_type::f4, std::vector<index_t>{3}).has_value());
    CHECK_FALSE(
        pesc::checked_bytes(element_type::f32, std::vector<index_t>{std::numeric_limits<index_t>::max() / 4})
            .has_value());
    CHECK(pesc::checked_product(big, big >> 2) == index_t{1} << 62);
    CHECK_FALSE(pesc::checked_product(big, big >> 1).has_value());
  }

  TEST_CASE("values are read at any address") {
    const std::byte bytes[] = {std::byte{9}, std::byte{1}, std::byte{0}, std::byte{0}, std::byte{0x80}};
    CHECK(pesc::load_unaligned<std::int32_t>(bytes + 1) == std::numeric_limits<std::int32_t>::min() + 1);
  }
}
