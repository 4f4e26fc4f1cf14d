// SPDX-License-Identifier: Apache-2.0
#include "pesc/io/block_types.hpp"

#include <string_view>
#include <vector>

#include <doctest/doctest.h>

namespace {

using pesc::element_type;

std::vector<std::byte> from_hex(std::string_view text) {
  const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
  std::vector<std::byte> out;
  for (std::size_t i = 0; i < text.size(); i += 2)
    out.push_back(static_cast<std::byte>(16 * digit(text[i]) + digit(text[i + 1])));
  return out;
}

std::vector<float> decoded(element_type type, const std::vector<std::byte>& bytes) {
  std::vector<float> out(32 * bytes.size() / static_cast<std::size_t>(pesc::block_of(type).bytes));
  pesc::decode_blocks(type, bytes, {out.data(), static_cast<pesc::index_t>(out.size())});
  return out;
}

}  // namespace

TEST_SUITE("io/block_types") {
  // First blocks of tensors of a published model, with values computed by another program.
  TEST_CASE("Q4_1 is scale times code plus minimum, low nibbles first") {
    const auto q = decoded(element_type::q4_1, from_hex("0f30d8b9458765406f65164b677664502267655a"));
    REQUIRE(q.size() == 32);
    CHECK(q[0] == doctest::Approx(-0.09631348).epsilon(1e-6));
    CHECK(q[1] == doctest::Approx(0.15734863).epsilon(1e-6));
    CHECK(q[2] == doctest::Approx(-0.09631348).epsilon(1e-6));
    CHECK(q[16] == doctest::Approx(-0.22314453).epsilon(1e-6));
    CHECK(q[17] == doctest::Approx(0.2841797).epsilon(1e-6));
  }

  TEST_CASE("Q8_0 is scale times a signed byte") {
    const auto q = decoded(element_type::q8_0,
                           from_hex("3219d60d13f7e5ee08d02aa801de56818608fd21dbee104fe81efaf9e21128391fb1"));
    CHECK(q[0] == doctest::Approx(-0.10654449).epsilon(1e-6));
    CHECK(q[1] == doctest::Approx(0.03297806).epsilon(1e-6));
    CHECK(q[2] == doctest::Approx(0.0481987).epsilon(1e-6));
    CHECK(q[16] == doctest::Approx(-0.00761032).epsilon(1e-5));
    CHECK(q[17] == doctest::Approx(0.08371353).epsilon(1e-6));
  }

  TEST_CASE("Q4_0 counts from -8") {
    std::vector<std::byte> bytes(36);
    bytes[1] = std::byte{0x38};   // 0.5
    bytes[2] = std::byte{0xF0};   // codes 0 and 15
    bytes[19] = std::byte{0xC0};  // -2
    const auto q = decoded(element_type::q4_0, bytes);
    REQUIRE(q.size() == 64);
    CHECK(q[0] == -4.0f);
    CHECK(q[16] == 3.5f);
    CHECK(q[1] == -4.0f);
    CHECK(q[32] == 16.0f);
  }

  TEST_CASE("only block types have blocks") {
    CHECK(pesc::is_block_type(element_type::q4_0));
    CHECK_FALSE(pesc::is_block_type(element_type::f16));
    CHECK_FALSE(pesc::is_block_type(element_type::unknown));
    CHECK(pesc::name_of(element_type::q8_0) == "Q8_0");
    CHECK(pesc::element_type_named("Q8_0") == element_type::unknown);
  }
}
