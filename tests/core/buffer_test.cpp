// SPDX-License-Identifier: Apache-2.0
#include "pesc/core/buffer.hpp"

#include <doctest/doctest.h>

#include "support/message_of.hpp"

namespace {

using namespace pesc;

/// Counts what is out.
struct counting_resource {
  using memory_space = host_space;
  index_t* out = nullptr;

  void* allocate(std::size_t bytes) const {
    ++*out;
    return host_resource{}.allocate(bytes);
  }
  void deallocate(void* data, std::size_t bytes) const noexcept {
    --*out;
    host_resource{}.deallocate(data, bytes);
  }
};

TEST_CASE("a buffer starts as zeros on a cache line") {
  buffer<float> b(1001);
  CHECK(reinterpret_cast<std::uintptr_t>(b.data()) % 64 == 0);
  bool zero = true;
  for (const float x : b.view()) zero &= x == 0.0f;
  CHECK(zero);
  b[1000] = 3.0f;
  CHECK(std::as_const(b)[1000] == 3.0f);
  CHECK(b.matrix(7, 143)(6, 142) == 3.0f);
  CHECK(b.size() == 1001);
}

TEST_CASE("memory moves along and is given back once") {
  index_t out = 0;
  {
    buffer<int, counting_resource> a(10, counting_resource{&out});
    a[3] = 7;
    buffer<int, counting_resource> b(std::move(a));
    CHECK(b[3] == 7);
    buffer<int, counting_resource> c(5, counting_resource{&out});
    CHECK(out == 2);
    c = std::move(b);
    CHECK(out == 1);
    CHECK(c[3] == 7);
    CHECK(c.size() == 10);
    static_assert(!std::is_copy_constructible_v<buffer<int>>);
  }
  CHECK(out == 0);
}

TEST_CASE("sizes that no memory has are refused before allocation") {
  CHECK(support::contains(support::message_of<shape_error>([] { buffer<float>(-1); }), "-1"));
  CHECK(support::contains(support::message_of<shape_error>([] { buffer<float>(index_t{1} << 62); }),
                          "4611686018427387904"));
  CHECK(buffer<float>(0).data() == nullptr);
  CHECK(buffer<float>().size() == 0);
}

}  // namespace
