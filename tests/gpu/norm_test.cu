// SPDX-License-Identifier: Apache-2.0
#include "gpu/device_tensor.hpp"
#include "pesc/gpu/norm.cuh"
#include "support/reference_ops.hpp"

namespace {

using namespace pesc;
using support::device_tensor;
using support::placement;

TEST_SUITE("gpu/norm") {
  TEST_CASE("rms_norm and its gradient agree with double precision") {
    cuda_backend ctx;
    for (const index_t rows : {0, 1, 5, 67})
      for (const index_t cols : {1, 16, 33, 64, 172, 1100, 1540}) {
        CAPTURE(rows);
        CAPTURE(cols);
        const index_t n = rows * cols;
        const auto x = support::normal_floats(n, 1, 2), dy = support::normal_floats(n, 2),
                   start = support::normal_floats(n, 3), weight = support::normal_floats(cols, 4);
        const auto x_exact = support::exact(rows, cols, x), w_exact = support::exact(1, cols, weight);
        const auto y_exact = reference::rms_norm(x_exact, w_exact, 1e-5);
        auto dx_exact =
            reference::rms_norm_backward(x_exact, w_exact, 1e-5, support::exact(rows, cols, dy)).dx;
        reference::add_to(dx_exact, support::exact(rows, cols, start));
        for (const placement where : support::placements) {
          device_tensor in(ctx, rows, cols, x, where), y(ctx, rows, cols, x, where),
              d(ctx, rows, cols, dy, where), dx(ctx, rows, cols, start, where);
          support::on_device<float> w(ctx, weight), inv(ctx, rows);
          rms_norm(ctx, y.in(), as_const(w.view()), 1e-5f, y.view(), inv.view());
          rms_norm_backward(ctx, in.in(), as_const(w.view()), as_const(inv.view()), d.in(), dx.view());
          CHECK(support::near(y.values(), y_exact.values, 1e-6));
          // In rows of one element the two terms of the gradient cancel.
          CHECK(support::near(dx.values(), dx_exact.values, cols == 1 ? 3e-6 : 1e-6));
          CHECK(y.gaps_kept());
          CHECK(dx.gaps_kept());
        }
      }
  }

  TEST_CASE("rms_norm of zeros is zero") {
    cuda_backend ctx;
    device_tensor x(ctx, 1, 10);
    device_tensor y(ctx, 1, 10, std::vector<float>(10, 7.0f));
    support::on_device<float> w(ctx, std::vector<float>(10, 1.0f)), inv(ctx, 1);
    rms_norm(ctx, x.in(), as_const(w.view()), 1e-6f, y.view(), inv.view());
    CHECK(inv.values()[0] == doctest::Approx(1000.0f));
    CHECK(y.values() == std::vector<float>(10, 0.0f));
  }
}

}  // namespace
