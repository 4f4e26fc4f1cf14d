// SPDX-License-Identifier: Apache-2.0
#include "pesc/cpu/reduce.hpp"

#include <bit>

#include "cpu/op_test.hpp"

namespace {

using namespace pesc;
using support::tensor;

TEST_CASE("column_sum adds to what is there") {
  for (const index_t cols : {1, 5, 64, 130}) {
    const tensor x = tensor::random(301, cols, 1);
    std::vector<double> expected = reference::column_sums(x.exact()).values;
    for (double& e : expected) e += 2;
    support::check_on_every_context(
        [&](cpu_backend& ctx) {
          std::vector<float> y(static_cast<std::size_t>(cols), 2.0f);
          column_sum(ctx, x.view(), vector_view<float>{y.data(), cols});
          return y;
        },
        expected, 1e-6);
  }
}

TEST_CASE("squared_norm is exact to double rounding") {
  for (const index_t n : {0, 1, 17, 4096, 100003}) {
    const std::vector<float> x = support::normal_floats(n, 2);
    double expected = 0;
    for (const float v : x) expected += static_cast<double>(v) * static_cast<double>(v);
    support::on_every_context(
        [&](cpu_backend& ctx) {
          const double norm = squared_norm(ctx, vector_view<const float>{x.data(), n});
          CHECK(norm == doctest::Approx(expected).epsilon(1e-12));
          const auto bits = std::bit_cast<std::uint64_t>(norm);
          return std::vector<float>{static_cast<float>(bits >> 40), static_cast<float>(bits & 0xFFFFF),
                                    static_cast<float>(bits >> 20 & 0xFFFFF)};
        },
        [](const std::vector<float>&) {});
  }
}

TEST_CASE("all_finite sees one bad element anywhere") {
  for (const index_t n : {1, 16, 17, 40000}) {
    std::vector<float> x = support::normal_floats(n, 3);
    support::on_every_context(
        [&](cpu_backend& ctx) {
          std::vector<float> seen;
          const vector_view<const float> view(x.data(), n);
          seen.push_back(all_finite(ctx, view));
          for (const index_t at : {index_t{0}, n / 2, n - 1})
            for (const float bad : {NAN, INFINITY, -INFINITY}) {
              const float kept = std::exchange(x[static_cast<std::size_t>(at)], bad);
              seen.push_back(!all_finite(ctx, view));
              seen.push_back(!all_finite(ctx, matrix_view<const float>{x.data(), n, 1}));
              x[static_cast<std::size_t>(at)] = kept;
            }
          seen.push_back(all_finite(ctx, vector_view<const float>{}));
          return seen;
        },
        [](const std::vector<float>& seen) {
          for (const float s : seen) CHECK(s == 1.0f);
        });
  }
}

TEST_CASE("row_dot multiplies row by row") {
  for (const index_t cols : {1, 16, 37, 700}) {
    const tensor a = tensor::random(45, cols, 4), b = tensor::random(45, cols, 5);
    std::vector<double> expected;
    for (index_t i = 0; i < 45; ++i) {
      double sum = 0;
      for (index_t j = 0; j < cols; ++j) sum += a.exact(i, j) * b.exact(i, j);
      expected.push_back(sum);
    }
    support::check_on_every_context(
        [&](cpu_backend& ctx) {
          std::vector<float> y(45);
          row_dot(ctx, a.view(), b.view(), vector_view<float>{y.data(), 45});
          return y;
        },
        expected, 1e-6);
  }
}

TEST_CASE("softmax_rows survives large, infinite and missing numbers") {
  for (const index_t cols : {1, 3, 16, 50}) {
    tensor x = tensor::random(20, cols, 6, 30);
    support::check_on_every_context(
        [&](cpu_backend& ctx) {
          tensor y = x;
          softmax_rows(ctx, as_const(y.view()), y.view());
          CHECK(y.gaps_kept());
          return y.values();
        },
        reference::softmax_rows(x.exact()).values, 1e-6);
  }
  const float inf = INFINITY;
  std::vector<float> rows = {-inf, -inf, -inf, -inf, NAN, 0, NAN, 0, inf, 1, 1, inf, NAN, NAN, NAN, NAN};
  support::on_every_context(
      [&](cpu_backend& ctx) {
        std::vector<float> y = rows;
        softmax_rows(ctx, matrix_view<const float>{y.data(), 4, 4}, matrix_view<float>{y.data(), 4, 4});
        return y;
      },
      [](const std::vector<float>& y) {
        CHECK(y == std::vector<float>{.25f, .25f, .25f, .25f, 0, .5f, 0, .5f, .5f, 0, 0, .5f, .25f, .25f,
                                      .25f, .25f});
      });
}

TEST_CASE("top_k gives distinct indices, best first, the lower one at a tie") {
  support::generator g(7);
  for (int round = 0; round < 500; ++round) {
    const index_t n = 1 + g.below(70);
    const int k = static_cast<int>(1 + g.below(std::min<index_t>(n, max_top_k)));
    std::vector<float> x(static_cast<std::size_t>(n));
    for (float& v : x) {
      v = static_cast<float>(g.below(8));
      if (g.below(10) == 0) v = NAN;
      if (g.below(10) == 0) v = -INFINITY;
    }
    const std::vector<double> wide(x.begin(), x.end());
    const auto expected = reference::top_k_of(wide.data(), n, k);
    std::int32_t best[max_top_k];
    cpu::detail::top_k(x.data(), n, k, best);
    for (int j = 0; j < k; ++j) CHECK(best[j] == expected[j]);
  }
}

}  // namespace
