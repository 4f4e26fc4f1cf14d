// SPDX-License-Identifier: Apache-2.0
#include "pesc/cpu/norm.hpp"

#include "cpu/op_test.hpp"

namespace {

using namespace pesc;
using support::tensor;

TEST_CASE("rms_norm and its gradient agree with double precision") {
  for (const index_t rows : {0, 1, 5, 67})
    for (const index_t cols : {1, 16, 33, 64, 172}) {
      CAPTURE(rows);
      CAPTURE(cols);
      const tensor x = tensor::random(rows, cols, 1, 2), dy = tensor::random(rows, cols, 2),
                   start = tensor::random(rows, cols, 3);
      const std::vector<float> weight = support::normal_floats(cols, 4);
      const reference::matrix w(1, cols, std::vector<double>(weight.begin(), weight.end()));
      std::vector<double> expected = reference::rms_norm(x.exact(), w, 1e-5).values;
      reference::matrix dx = reference::rms_norm_backward(x.exact(), w, 1e-5, dy.exact()).dx;
      reference::add_to(dx, start.exact());
      expected.insert(expected.end(), dx.values.begin(), dx.values.end());
      support::check_on_every_context(
          [&](cpu_backend& ctx) {
            tensor y = x, d = start;
            std::vector<float> inv(static_cast<std::size_t>(rows));
            const vector_view<const float> weights(weight.data(), cols);
            rms_norm(ctx, as_const(y.view()), weights, 1e-5f, y.view(), vector_view<float>{inv.data(), rows});
            rms_norm_backward(ctx, x.view(), weights, vector_view<const float>{inv.data(), rows}, dy.view(),
                              d.view());
            CHECK(y.gaps_kept());
            CHECK(d.gaps_kept());
            return support::together(y, d);
          },
          expected, 1e-6);
    }
}

TEST_CASE("rms_norm of zeros is zero") {
  const std::vector<float> x(10, 0.0f), w(10, 1.0f);
  support::on_every_context(
      [&](cpu_backend& ctx) {
        std::vector<float> y(10, 7.0f), inv(1);
        rms_norm(ctx, matrix_view<const float>{x.data(), 1, 10}, vector_view<const float>{w.data(), 10},
                 1e-6f, matrix_view<float>{y.data(), 1, 10}, vector_view<float>{inv.data(), 1});
        CHECK(inv[0] == doctest::Approx(1000.0f));
        return y;
      },
      [&](const std::vector<float>& y) { CHECK(y == x); });
}

}  // namespace
