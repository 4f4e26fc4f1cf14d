// SPDX-License-Identifier: Apache-2.0
#include "pesc/io/checksum.hpp"

#include <string>

#include <doctest/doctest.h>

#include "pesc/io/file_kind.hpp"
#include "support/message_of.hpp"
#include "support/temporary_folder.hpp"

TEST_SUITE("io/checksum") {
  TEST_CASE("checksums are those of xxh64sum") {
    const auto text = [](std::string_view s) {
      return pesc::checksum_text(pesc::checksum(pesc::as_bytes(s)));
    };
    CHECK(text("") == "ef46db3751d8e999");
    CHECK(text("a") == "d24ec4f1a98c6e5b");
    CHECK(text("abc") == "44bc2cf5ad770999");
    CHECK(pesc::checksum_text(1) == "0000000000000001");
  }

  TEST_CASE("a file read in pieces has the checksum of its bytes") {
    const support::temporary_folder folder;
    std::string bytes;
    for (int i = 0; i < (5 << 19) + 7; ++i) bytes += static_cast<char>(i * 7 + i / 256);
    const auto sum = pesc::checksum_file(folder.write("x", bytes));
    CHECK(sum == pesc::file_checksum{static_cast<pesc::index_t>(bytes.size()),
                                     pesc::checksum(pesc::as_bytes(bytes))});
    CHECK(pesc::checksum_file(folder.write("empty", "")).value == pesc::checksum({}));
    CHECK(support::contains(support::message_of<pesc::io_error>(
                                [&] { static_cast<void>(pesc::checksum_file(folder.path("none"))); }),
                            "there is no such file"));
  }
}
