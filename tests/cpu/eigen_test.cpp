// SPDX-License-Identifier: Apache-2.0
#include "pesc/cpu/eigen.hpp"

#include <vector>

#include <doctest/doctest.h>

TEST_SUITE("cpu/eigen") {
  TEST_CASE("a view and its Eigen expression are the same memory, rows apart by the stride") {
    std::vector<float> values(12, 0.0f);
    const pesc::matrix_view<float> m(values.data() + 1, 2, 3, 5);
    auto e = pesc::as_eigen(m);
    e(1, 2) = 7.0f;
    CHECK(m(1, 2) == 7.0f);
    CHECK(values[1 + 5 + 2] == 7.0f);
    CHECK(pesc::as_eigen(pesc::as_const(m)).sum() == 7.0f);
    pesc::as_eigen(pesc::vector_view<float>(values.data(), 12)).setConstant(2.0f);
    CHECK(m(0, 0) == 2.0f);
  }

  TEST_CASE("an Eigen matrix is seen in row order") {
    pesc::eigen_matrix<float> e(2, 3);
    e << 1, 2, 3, 4, 5, 6;
    const pesc::matrix_view<float> m = pesc::from_eigen(e);
    CHECK(m.stride == 3);
    CHECK(m(1, 0) == 4.0f);
  }
}
