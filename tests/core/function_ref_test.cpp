// SPDX-License-Identifier: Apache-2.0
#include "pesc/core/function_ref.hpp"

#include <doctest/doctest.h>

namespace {

using namespace pesc;

int twice(function_ref<int(int)> f, int x) { return f(f(x)); }

TEST_CASE("a function_ref calls what it refers to, with its state") {
  int calls = 0;
  const auto add = [&calls](int x) {
    ++calls;
    return x + 3;
  };
  CHECK(twice(add, 1) == 7);
  CHECK(calls == 2);
  const auto grow = [n = 0](int x) mutable { return x + ++n; };
  auto state = grow;
  CHECK(twice(state, 0) == 3);
  CHECK(state(0) == 3);  // the referred object itself was changed
}

TEST_CASE("a copy refers to the same callable") {
  int sum = 0;
  const auto add = [&sum](int x) { sum += x; };
  const function_ref<void(int)> first(add);
  const function_ref<void(int)> second(first);
  first(1);
  second(2);
  CHECK(sum == 3);
  static_assert(sizeof(first) == 2 * sizeof(void*));
}

}  // namespace
