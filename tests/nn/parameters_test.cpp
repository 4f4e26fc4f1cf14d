// SPDX-License-Identifier: Apache-2.0
#include "pesc/nn/parameters.hpp"

#include <cmath>
#include <vector>

#include <doctest/doctest.h>

#include "support/message_of.hpp"

using pesc::index_t;

TEST_SUITE("nn/parameters") {
  TEST_CASE("counting and carving give the same layout, tensors begin on cache lines") {
    pesc::parameter_arena<> counting;
    CHECK(counting.take(3, 5).data == nullptr);
    CHECK(counting.take(2, 3, 5).data == nullptr);
    CHECK(counting.take(1, 16).data == nullptr);
    CHECK(counting.size() == 16 + 32 + 16);

    pesc::buffer<float> memory(counting.size());
    pesc::parameter_arena<> arena(memory.data(), memory.size());
    CHECK(arena.take(3, 5).data == memory.data());
    const auto stack = arena.take(2, 3, 5);
    CHECK(stack.data == memory.data() + 16);
    CHECK(stack[1].data == stack.data + 15);
    CHECK(arena.take(1, 16).data == memory.data() + 48);
    CHECK(arena.size() == memory.size());
    CHECK(support::message_of<pesc::shape_error>([&] { static_cast<void>(arena.take(1, 1)); }) ==
          "parameter arena of 64 floats is too small, at least 80 are needed");
  }

  TEST_CASE("an empty tensor takes no room") {
    pesc::parameter_arena<> counting;
    static_cast<void>(counting.take(0, 7));
    CHECK(counting.size() == 0);
  }

  TEST_CASE("uniform starts fill their range evenly and depend on stream and position only") {
    constexpr index_t n = 20000;
    std::vector<float> values(n);
    pesc::fill_uniform({values.data(), 1, 1, n}, 25, {.seed = 3});
    double sum = 0;
    double square = 0;
    for (const float v : values) {
      REQUIRE(std::fabs(v) <= 0.2f);
      sum += static_cast<double>(v);
      square += static_cast<double>(v) * static_cast<double>(v);
    }
    // Mean 0 and variance bound^2 / 3, within five standard errors.
    CHECK(std::fabs(sum / n) < 5 * 0.2 / std::sqrt(3.0 * n));
    CHECK(square / n == doctest::Approx(0.04 / 3).epsilon(0.03));

    std::vector<float> part(100);
    pesc::fill_uniform({part.data(), 1, 10, 10}, 25, {.seed = 3});
    CHECK(std::equal(part.begin(), part.end(), values.begin()));
    pesc::fill_uniform({part.data(), 1, 10, 10}, 25, {.seed = 4});
    CHECK_FALSE(std::equal(part.begin(), part.end(), values.begin()));
  }

  TEST_CASE("a matrix seen as a stack of one is the same memory") {
    std::vector<float> values(6, 1.0f);
    const auto stack = pesc::as_batch(pesc::matrix_view<float>{values.data(), 2, 3});
    CHECK(stack.data == values.data());
    CHECK(stack.count == 1);
    CHECK(stack.rows == 2);
    CHECK(stack.cols == 3);
    pesc::fill_zero(stack);
    CHECK(values == std::vector<float>(6, 0.0f));
  }
}
