// SPDX-License-Identifier: Apache-2.0
#include "pesc/text/protobuf_reader.hpp"

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

#include <doctest/doctest.h>

#include "support/message_of.hpp"

using pesc::protobuf_reader;
using support::contains;
using support::message_of;
using namespace std::string_literals;

namespace {

std::string refusal(std::string_view bytes) {
  return message_of([&] {
    protobuf_reader r{bytes, "m"};
    while (r.next()) {
    }
  });
}

}  // namespace

TEST_SUITE("text/protobuf_reader") {
  TEST_CASE("fields of all kinds are read in their order") {
    const std::string bytes =
        "\x08\x96\x01"s  // 1: 150
        "\x12\x03"
        "abc"s                   // 2: text
        "\x1D\x00\x00\x80\xBF"s  // 3: -1
        "\x21"
        "12345678"s                                      // 4: 8 bytes
        "\x28\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01"s  // 5: -1
        "\x12\x00"s;                                     // 2: empty
    protobuf_reader r{bytes, "m", 100};
    REQUIRE(r.next());
    CHECK(r.field() == 1);
    CHECK(r.number() == 150);
    CHECK(r.flag());
    CHECK(r.position() == 100);
    REQUIRE(r.next());
    CHECK(r.text() == "abc");
    CHECK(r.position() == 103);
    REQUIRE(r.next());
    CHECK(r.float32() == -1.0f);
    REQUIRE(r.next());
    CHECK(r.field() == 4);
    REQUIRE(r.next());
    CHECK(r.int32() == -1);
    CHECK(r.number() == std::numeric_limits<std::uint64_t>::max());
    REQUIRE(r.next());
    CHECK(r.text().empty());
    CHECK_FALSE(r.next());
    CHECK_FALSE(r.next());
  }

  TEST_CASE("messages in messages keep the position in the file") {
    const std::string bytes = "\x0A\x02\x08\x07\x0A\x02\x08\x80"s;
    protobuf_reader r{bytes, "m"};
    REQUIRE(r.next());
    protobuf_reader inner = r.message();
    REQUIRE(inner.next());
    CHECK(inner.number() == 7);
    CHECK(inner.position() == 2);
    REQUIRE(r.next());
    CHECK(message_of([&] {
            protobuf_reader m = r.message();
            static_cast<void>(m.next());
          }) == "m: byte 8: the message ends inside a number");
  }

  TEST_CASE("what is no protobuf is refused with the byte") {
    CHECK(refusal("") == "no error");
    CHECK(refusal("\x80"s) == "m: byte 1: the message ends inside a number");
    CHECK(refusal("\x08"s) == "m: byte 1: the message ends inside a number");
    CHECK(refusal("\x08\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x02"s) ==
          "m: byte 10: a number of more than 64 bits");
    CHECK(refusal("\x08\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01"s) ==
          "m: byte 10: a number of more than 64 bits");
    CHECK(contains(refusal("\x00"s), "field number 0, expected 1 to 2^29 - 1"));
    CHECK(contains(refusal("\xFF\xFF\xFF\xFF\xFF\x01"s), "expected 1 to 2^29 - 1"));
    CHECK(refusal("\x0B"s) == "m: byte 0: wire type 3, expected 0, 1, 2 or 5");
    CHECK(contains(refusal("\x0A\x05"
                           "abc"s),
                   "a value of 5 bytes, 3 are left"));
    CHECK(contains(refusal("\x0A\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01"s),
                   "a value of 18446744073709551615 bytes, 0 are left"));
    CHECK(contains(refusal("\x0D\x01\x02"s), "a value of 4 bytes, 2 are left"));
    CHECK(contains(refusal("\x09\x01"s), "a value of 8 bytes, 1 are left"));
  }

  TEST_CASE("a value of another type than the reader wants is refused") {
    protobuf_reader r{"\x08\x01", "m"};
    REQUIRE(r.next());
    CHECK(message_of([&] { static_cast<void>(r.text()); }) ==
          "m: byte 0: field 1 has wire type 0, expected 2 (bytes with their length)");
    CHECK(contains(message_of([&] { static_cast<void>(r.float32()); }), "expected 5 (four bytes)"));
    CHECK(contains(message_of([&] { static_cast<void>(r.message()); }), "expected 2"));
    protobuf_reader text{"\x0A\x01x", "m"};
    REQUIRE(text.next());
    CHECK(contains(message_of([&] { static_cast<void>(text.number()); }), "expected 0 (an integer)"));
  }
}
