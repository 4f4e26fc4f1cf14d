// SPDX-License-Identifier: Apache-2.0
#include "pesc/io/file_kind.hpp"

#include <string>

#include <doctest/doctest.h>

#include "support/message_of.hpp"

TEST_SUITE("io/file_kind") {
  TEST_CASE("files that are often taken for a model are recognised") {
    const auto kind = [](const std::string& bytes) {
      return pesc::describe_foreign_file(pesc::as_bytes(bytes));
    };
    using support::contains;
    CHECK(contains(kind("version https://git-lfs.github.com/spec/v1\noid sha256:1\n"),
                   "Git LFS pointer, not the file itself (56 bytes). Run git lfs pull."));
    CHECK(contains(kind("PK\x03\x04rest"), "zip archive (8 bytes)"));
    CHECK(contains(kind("\x1F\x8B\x08"), "gzip file"));
    CHECK(contains(kind("\x80\x02}q"), "Python pickle"));
    CHECK(contains(kind("GGUF\x03"), "GGUF file"));
    CHECK(contains(kind("\x93NUMPY\x01"), "NumPy array file"));
    CHECK(contains(kind(" \n<!doctype HTML>"), "web page"));
    CHECK(contains(kind("<HTML>"), "web page"));
    for (const char* other : {"", "{\"a\": 1}", "P", "\x1F", "GGU", "version", "\x80", "plain text", "<h1>"})
      CHECK(kind(other).empty());
  }
}
