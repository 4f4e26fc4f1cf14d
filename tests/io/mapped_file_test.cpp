// SPDX-License-Identifier: Apache-2.0
#include "pesc/io/mapped_file.hpp"

#include <string>
#include <utility>

#include <doctest/doctest.h>

#include "pesc/io/file_kind.hpp"
#include "support/message_of.hpp"
#include "support/temporary_folder.hpp"

TEST_SUITE("io/mapped_file") {
  TEST_CASE("a mapping shows the bytes and survives a move") {
    const support::temporary_folder folder;
    pesc::mapped_file first{folder.write("x", "hello")};
    CHECK(pesc::as_text(first.bytes()) == "hello");
    pesc::mapped_file second{std::move(first)};
    CHECK(first.bytes().empty());
    pesc::mapped_file third;
    third = std::move(second);
    CHECK(pesc::as_text(third.bytes()) == "hello");
    CHECK(pesc::mapped_file{folder.write("empty", "")}.bytes().empty());
  }

  TEST_CASE("what cannot be mapped is an error") {
    const support::temporary_folder folder;
    CHECK(support::message_of<pesc::io_error>([&] { pesc::mapped_file{folder.path("none")}; }) ==
          folder.path("none") + ": there is no such file");
  }
}
