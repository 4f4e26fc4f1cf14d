// SPDX-License-Identifier: Apache-2.0
#include <tuple>
#include <utility>

#include "gpu/device_tensor.hpp"
#include "pesc/gpu/reduce.cuh"
#include "support/reference_ops.hpp"
#include "support/reference_router.hpp"

namespace {

using namespace pesc;
using support::device_tensor;
using support::placement;

TEST_SUITE("gpu/reduce") {
  TEST_CASE("column_sum adds to what is there") {
    cuda_backend ctx;
    for (const index_t rows : {0, 1, 7, 301})
      for (const index_t cols : {1, 5, 8, 64, 130}) {
        const auto x = support::normal_floats(rows * cols, 1);
        std::vector<double> expected(static_cast<std::size_t>(cols), 2.0);
        for (std::size_t i = 0; i < x.size(); ++i)
          expected[i % static_cast<std::size_t>(cols)] += static_cast<double>(x[i]);
        device_tensor a(ctx, rows, cols, x);
        support::on_device<float> y(ctx, std::vector<float>(static_cast<std::size_t>(cols), 2.0f));
        column_sum(ctx, a.in(), y.view());
        CHECK(support::near(y.values(), expected, 1e-6));
      }
  }

  TEST_CASE("squared_norm is exact to double rounding") {
    cuda_backend ctx;
    for (const index_t n : {0, 1, 3, 17, 4096, 4097, 100003})
      for (const index_t begin : {0, 1, 4}) {
        const auto x = support::normal_floats(n + begin, 2);
        double expected = 0;
        for (index_t i = begin; i < n + begin; ++i) {
          const auto value = static_cast<double>(x[static_cast<std::size_t>(i)]);
          expected += value * value;
        }
        support::on_device<float> a(ctx, x);
        support::on_device<double> out(ctx, std::vector<double>{-1.0});
        support::with_device_scratch([&](workspace<device_space>& ws) {
          squared_norm(ctx, as_const(a.view().part(begin, n)), out.view(), ws);
        });
        CHECK(out.values()[0] == doctest::Approx(expected).epsilon(1e-12));
      }
  }

  TEST_CASE("sums have the same bits in every run") {
    cuda_backend ctx;
    device_tensor x(ctx, 301, 130, support::normal_floats(301 * 130, 1), placement::dense);
    const auto sums = [&] {
      support::on_device<double> out(ctx, 1);
      support::on_device<float> columns(ctx, 130), rows(ctx, 301);
      support::with_device_scratch([&](workspace<device_space>& ws) {
        squared_norm(ctx, vector_view<const float, device_space>(x.view().data, 301 * 130), out.view(), ws);
      });
      column_sum(ctx, x.in(), columns.view());
      row_dot(ctx, x.in(), x.in(), rows.view());
      return std::tuple(out.values(), columns.values(), rows.values());
    };
    const auto first = sums();
    for (int i = 0; i < 3; ++i) CHECK((sums() == first));
  }

  TEST_CASE("squared_norm keeps what is not finite") {
    cuda_backend ctx;
    support::on_device<float> a(ctx, {1.0f, INFINITY, 2.0f});
    support::on_device<double> out(ctx, 1);
    support::with_device_scratch(
        [&](workspace<device_space>& ws) { squared_norm(ctx, as_const(a.view()), out.view(), ws); });
    CHECK(std::isinf(out.values()[0]));
  }

  TEST_CASE("all_finite sees one bad element anywhere") {
    cuda_backend ctx;
    for (const index_t n : {1, 16, 17, 4096, 4097, 40000}) {
      std::vector<float> x = support::normal_floats(n, 3);
      const auto seen = [&](bool as_column) {
        support::on_device<float> a(ctx, x);
        support::on_device<std::int32_t> out(ctx, std::vector<std::int32_t>{7});
        support::with_device_scratch([&](workspace<device_space>& ws) {
          if (as_column)
            all_finite(ctx, matrix_view<const float, device_space>(a.data(), (n + 1) / 2, 1, 2), out.view(),
                       ws);
          else
            all_finite(ctx, as_const(a.view()), out.view(), ws);
        });
        return out.values()[0];
      };
      CHECK(seen(false) == 1);
      CHECK(seen(true) == 1);
      for (const index_t at : {index_t{0}, n / 2 / 2 * 2, (n - 1) / 2 * 2})
        for (const float bad : {NAN, INFINITY, -INFINITY}) {
          const float kept = std::exchange(x[static_cast<std::size_t>(at)], bad);
          CHECK(seen(false) == 0);
          CHECK(seen(true) == 0);
          x[static_cast<std::size_t>(at)] = kept;
        }
    }
    // Elements between rows do not count, and neither does nothing.
    support::on_device<float> gaps(ctx, {1.0f, NAN, 2.0f, NAN});
    support::on_device<std::int32_t> out(ctx, 2);
    support::with_device_scratch([&](workspace<device_space>& ws) {
      all_finite(ctx, matrix_view<const float, device_space>(gaps.data(), 2, 1, 2), out.view().part(0, 1),
                 ws);
      all_finite(ctx, vector_view<const float, device_space>{}, out.view().part(1, 1), ws);
    });
    CHECK(out.values() == std::vector<std::int32_t>{1, 1});
  }

  TEST_CASE("row_dot multiplies row by row") {
    cuda_backend ctx;
    for (const index_t rows : {0, 1, 45})
      for (const index_t cols : {0, 1, 16, 37, 700, 1500})
        for (const placement where : support::placements) {
          const auto x = support::normal_floats(rows * cols, 4), z = support::normal_floats(rows * cols, 5);
          std::vector<double> expected(static_cast<std::size_t>(rows));
          for (index_t i = 0; i < rows * cols; ++i) {
            const auto at = static_cast<std::size_t>(i);
            expected[static_cast<std::size_t>(i / cols)] +=
                static_cast<double>(x[at]) * static_cast<double>(z[at]);
          }
          device_tensor a(ctx, rows, cols, x, where), b(ctx, rows, cols, z, where);
          support::on_device<float> y(ctx, std::vector<float>(static_cast<std::size_t>(rows), 9.0f));
          row_dot(ctx, a.in(), b.in(), y.view());
          CHECK(support::near(y.values(), expected, 1e-6));
        }
  }

  TEST_CASE("softmax_rows survives large, infinite and missing numbers") {
    cuda_backend ctx;
    for (const index_t cols : {1, 3, 8, 16, 50, 1100, 1540})
      for (const placement where : support::placements) {
        const index_t rows = 20;
        const auto x = support::normal_floats(rows * cols, 6, 30);
        device_tensor y(ctx, rows, cols, x, where);
        softmax_rows(ctx, y.in(), y.view());
        CHECK(support::near(y.values(), reference::softmax_rows(support::exact(rows, cols, x)).values, 1e-6));
        CHECK(y.gaps_kept());
      }
    const float inf = INFINITY;
    device_tensor y(ctx, 4, 4, {-inf, -inf, -inf, -inf, NAN, 0, NAN, 0, inf, 1, 1, inf, NAN, NAN, NAN, NAN});
    softmax_rows(ctx, y.in(), y.view());
    CHECK(y.values() ==
          std::vector<float>{.25f, .25f, .25f, .25f, 0, .5f, 0, .5f, .5f, 0, 0, .5f, .25f, .25f, .25f, .25f});
  }

  TEST_CASE("operations on nothing do nothing") {
    cuda_backend ctx;
    const matrix_view<float, device_space> none, thin(nullptr, 5, 0);
    column_sum(ctx, as_const(none), {});
    column_sum(ctx, as_const(thin), {});
    softmax_rows(ctx, as_const(none), none);
    softmax_rows(ctx, as_const(thin), thin);
    ctx.synchronize();
  }
}

}  // namespace
