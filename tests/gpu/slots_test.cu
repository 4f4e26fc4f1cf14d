// SPDX-License-Identifier: Apache-2.0
#include "gpu/device_groups.hpp"
#include "pesc/gpu/slots.cuh"

namespace {

using namespace pesc;
using support::device_groups;
using support::device_tensor;
using support::on_device;
using support::placement;

TEST_SUITE("gpu/slots") {
  TEST_CASE("slots are numbered token by token, values travel by index") {
    cuda_backend ctx;
    on_device<std::int32_t> token(ctx, 6), index(ctx, std::vector<std::int32_t>{2, -1, 0, 3}), none(ctx, 0);
    number_slots(ctx, 3, token.view());
    CHECK(token.values() == std::vector<std::int32_t>{0, 0, 0, 1, 1, 1});
    on_device<float> values(ctx, std::vector<float>{10, 20, 30}), y(ctx, 4),
        z(ctx, std::vector<float>(4, 7.0f));
    gather_values(ctx, values.view(), index.view(), y.view());
    CHECK(y.values() == std::vector<float>{30, 0, 10, 0});
    scatter_values(ctx, values.view(), index.view(), z.view());
    CHECK(z.values() == std::vector<float>{30, 0, 10, 0});
    number_slots(ctx, 2, none.view());
    gather_values(ctx, values.view(), none.view(), y.view().part(0, 0));
  }

  TEST_CASE("scale_rows multiplies each row by its factor") {
    cuda_backend ctx;
    for (const index_t rows : {0, 1, 300})
      for (const index_t cols : {1, 21, 32})
        for (const placement where : support::placements) {
          const auto x = support::normal_floats(rows * cols, 1), scale = support::normal_floats(rows, 2);
          std::vector<double> expected;
          for (index_t i = 0; i < rows * cols; ++i)
            expected.push_back(static_cast<double>(x[static_cast<std::size_t>(i)]) *
                               static_cast<double>(scale[static_cast<std::size_t>(i / cols)]));
          device_tensor y(ctx, rows, cols, x, where);
          on_device<float> factors(ctx, scale);
          scale_rows(ctx, factors.view(), y.view());
          CHECK(support::near(y.values(), expected, 1e-7));
          CHECK(y.gaps_kept());
        }
  }

  TEST_CASE("combine_rows_backward is the derivative of combine_rows by h and by the gates of rho") {
    cuda_backend ctx;
    const support::slot_scene s{3, 5, {0, 1, 1, 2, 2, 4, 4, 4}, {0, 1, 2, 3, 0, 3, 3, 1}};
    device_groups owner(ctx, s);
    const auto gates = support::uniform_floats(8, 3, 0.1, 1);
    for (const index_t cols : {11, 64, 1500})
      for (const bool gate_sum : {false, true}) {
        const placement where = cols == 64 ? placement::aligned : placement::shifted;
        const auto hs = support::normal_floats(5 * cols, 1), ds = support::normal_floats(5 * cols, 2);
        const auto exact_h = support::exact(5, cols, hs), exact_d = support::exact(5, cols, ds);
        std::vector<double> expected, dgates(8, 0.5);
        for (index_t t = 0; t < 5; ++t) {
          double rho = gate_sum ? 0 : 1, product = 0;
          for (index_t j = 0; j < cols; ++j) product += exact_d(t, j) * exact_h(t, j);
          for (std::size_t i = 0; i < 8; ++i)
            if (gate_sum && s.token[i] == t && s.expert[i] < s.experts) {
              rho += static_cast<double>(gates[i]);
              dgates[i] += product;
            }
          for (index_t j = 0; j < cols; ++j) expected.push_back(1 + rho * exact_d(t, j));
        }
        device_tensor h(ctx, 5, cols, hs, where), dy(ctx, 5, cols, ds, where),
            dh(ctx, 5, cols, std::vector<float>(static_cast<std::size_t>(5 * cols), 1.0f), where);
        on_device<float> gate(ctx, gates), dgate(ctx, std::vector<float>(8, 0.5f));
        combine_rows_backward(ctx, dy.in(), h.in(), gate.view(), owner.view(), gate_sum, dh.view(),
                              dgate.view());
        CHECK(support::near(dh.values(), expected, 1e-6));
        CHECK(support::near(dgate.values(), dgates, 1e-6));
        CHECK(dh.gaps_kept());
      }
  }
}

}  // namespace
