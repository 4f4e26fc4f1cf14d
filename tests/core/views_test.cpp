// SPDX-License-Identifier: Apache-2.0
#include "pesc/core/views.hpp"

#include <array>
#include <type_traits>
#include <vector>

#include <doctest/doctest.h>

namespace {

using namespace pesc;

TEST_CASE("views are plain values that turn from writable to readable, and not back") {
  static_assert(std::is_trivially_copyable_v<matrix_view<float>>);
  static_assert(std::is_convertible_v<matrix_view<float>, matrix_view<const float>>);
  static_assert(!std::is_convertible_v<matrix_view<const float>, matrix_view<float>>);
  static_assert(!std::is_convertible_v<vector_view<float, device_space>, vector_view<float, host_space>>);
  static_assert(std::is_convertible_v<batch_view<float>, batch_view<const float>>);
}

TEST_CASE("a matrix view steps by its stride") {
  std::vector<float> memory(40);
  for (std::size_t i = 0; i < 40; ++i) memory[i] = static_cast<float>(i);
  const matrix_view<float> m(memory.data(), 4, 7, 10);
  CHECK(m(2, 3) == 23.0f);
  CHECK(m.row(3)[6] == 36.0f);
  CHECK(m.size() == 28);
  CHECK_FALSE(m.empty());
  const auto part = m.row_range(1, 2).col_range(2, 3);
  CHECK(part.rows == 2);
  CHECK(part.cols == 3);
  CHECK(part(1, 2) == 24.0f);
  part(0, 0) = -1.0f;
  CHECK(memory[12] == -1.0f);
  CHECK(as_const(m)(1, 2) == -1.0f);
  CHECK(matrix_view<float>(memory.data(), 3, 0).empty());
  CHECK(matrix_view<float>().empty());
}

TEST_CASE("a vector view is made from host lists and cut into parts") {
  std::vector<int> list = {1, 2, 3, 4};
  const vector_view<int> v{std::span(list)};
  CHECK(v.size == 4);
  CHECK(v.part(1, 2)[1] == 3);
  CHECK(v.part(4, 0).empty());
  int sum = 0;
  for (const int x : as_const(v)) sum += x;
  CHECK(sum == 10);
  std::array<int, 2> fixed = {5, 6};
  CHECK(vector_view<int>{std::span(fixed)}[1] == 6);
}

TEST_CASE("a batch view gives its matrices") {
  std::vector<float> memory(24);
  for (std::size_t i = 0; i < 24; ++i) memory[i] = static_cast<float>(i);
  const batch_view<float> b(memory.data(), 4, 2, 3);
  CHECK(b.size() == 24);
  CHECK(b[3](1, 2) == 23.0f);
  CHECK(as_const(b)[1](0, 0) == 6.0f);
}

}  // namespace
