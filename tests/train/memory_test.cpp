// SPDX-License-Identifier: Apache-2.0
#include "pesc/train/memory.hpp"

#include <vector>

#include <doctest/doctest.h>

TEST_SUITE("train/memory") {
  TEST_CASE("bytes are told with three digits in the unit that fits") {
    CHECK(pesc::bytes_text(0) == "0 B");
    CHECK(pesc::bytes_text(999) == "999 B");
    CHECK(pesc::bytes_text(1000) == "1.00 kB");
    CHECK(pesc::bytes_text(999'900) == "1.00 MB");
    CHECK(pesc::bytes_text(12'340'000) == "12.3 MB");
    CHECK(pesc::bytes_text(812'000'000) == "812 MB");
    CHECK(pesc::bytes_text(31'200'000'000) == "31.2 GB");
    CHECK(pesc::bytes_text(pesc::index_t{5'000'000'000'000'000}) == "5000 TB");
  }

  TEST_CASE("resident memory grows with what the process touches") {
    const pesc::index_t before = pesc::resident_memory();
    if (before == 0) return;  // a system that does not tell
    constexpr std::size_t size = 64u << 20;
    std::vector<char> touched(size, 1);
    const pesc::index_t after = pesc::resident_memory();
    CHECK(touched[size / 2] == 1);
    CHECK(after - before > static_cast<pesc::index_t>(size / 2));
  }

  TEST_CASE("available memory and free disk are unknown or plausible") {
    const pesc::index_t memory = pesc::available_memory();
    CHECK(memory >= -1);
    CHECK(memory < pesc::index_t{1} << 50);
    CHECK(pesc::free_disk("/") > 0);
    CHECK(pesc::free_disk("/there is no such folder") == -1);
  }
}
