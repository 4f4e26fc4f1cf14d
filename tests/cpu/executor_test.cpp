// SPDX-License-Identifier: Apache-2.0
#include "pesc/cpu/executor.hpp"

#include <vector>

#include <doctest/doctest.h>

namespace {

using namespace pesc;

TEST_CASE("the inline executor runs all chunks in order on the calling thread") {
  std::vector<index_t> seen;
  const cpu::inline_executor executor;
  executor.parallel_for(10, 4, [&](index_t begin, index_t end, int worker) {
    seen.push_back(begin);
    seen.push_back(end);
    CHECK(worker == 0);
  });
  CHECK(seen == std::vector<index_t>{0, 4, 4, 8, 8, 10});
  executor.parallel_for(0, 4, [&](index_t, index_t, int) { CHECK(false); });
  CHECK(executor.concurrency() == 1);
  static_assert(!cpu::Executor<int>);
}

}  // namespace
