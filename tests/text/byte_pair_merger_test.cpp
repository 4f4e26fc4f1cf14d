// SPDX-License-Identifier: Apache-2.0
#include "pesc/text/byte_pair_merger.hpp"

#include <cstdint>
#include <vector>

#include <doctest/doctest.h>

using ids = std::vector<std::int32_t>;

TEST_SUITE("text/byte_pair_merger") {
  TEST_CASE("the lowest rank joins first, the leftmost among equals, and results are added behind") {
    pesc::merge_table table;
    table.add(1, 2, {1, 12});
    table.add(2, 3, {0, 23});
    table.add(1, 1, {2, 11});
    table.add(11, 11, {3, 1111});
    table.finish();
    pesc::byte_pair_merger merger{table};
    ids out{9};
    merger.append(ids{1, 2, 3}, out);
    CHECK(out == ids{9, 1, 23});
    out.clear();
    merger.append(ids{}, out);
    CHECK(out.empty());
    merger.append(ids{5}, out);
    merger.append(ids{1, 1, 1, 1, 1}, out);
    CHECK(out == ids{5, 1111, 1});
    out.clear();
    merger.append(ids{1, 2, 1, 2, 3}, out);
    CHECK(out == ids{12, 1, 23});
  }

  TEST_CASE("without pairs everything stays") {
    const pesc::merge_table none;
    pesc::byte_pair_merger merger{none};
    ids out;
    merger.append(ids{3, 3, 3}, out);
    CHECK(out == ids{3, 3, 3});
  }
}
