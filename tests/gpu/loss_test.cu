// SPDX-License-Identifier: Apache-2.0
#include "gpu/device_tensor.hpp"
#include "pesc/gpu/loss.cuh"
#include "support/reference_ops.hpp"

namespace {

using namespace pesc;
using support::device_tensor;
using support::placement;

TEST_SUITE("gpu/loss") {
  TEST_CASE("cross_entropy and its gradient agree with double precision") {
    cuda_backend ctx;
    for (const index_t rows : {0, 1, 7, 33})
      for (const index_t vocabulary : {1, 3, 50, 512, 1003, 2052})
        for (const double deviation : {1.0, 40.0}) {
          CAPTURE(rows);
          CAPTURE(vocabulary);
          const auto logits = support::normal_floats(rows * vocabulary, 1, deviation);
          const auto exact = support::exact(rows, vocabulary, logits);
          std::vector<std::int32_t> targets;
          reference::list<index_t> exact_targets;
          for (index_t t = 0; t < rows; ++t) {
            const index_t target = t % 5 == 3 ? -1 : t * 31 % vocabulary;
            targets.push_back(static_cast<std::int32_t>(target));
            exact_targets.push_back(target);
          }
          const auto whole = reference::cross_entropy(exact, exact_targets, 4.0);
          std::vector<double> expected;
          for (index_t t = 0; t < rows; ++t) {
            reference::list<index_t> one(rows, -1);
            one[t] = exact_targets[t];
            expected.push_back(reference::cross_entropy(exact, one, 1.0).loss);
          }
          support::on_device<std::int32_t> wanted(ctx, targets);
          for (const placement where : support::placements) {
            device_tensor x(ctx, rows, vocabulary, logits, where);
            support::on_device<float> losses(ctx, std::vector<float>(static_cast<std::size_t>(rows), 9.0f)),
                again(ctx, rows);
            cross_entropy(ctx, x.in(), as_const(wanted.view()), 0.25f, again.view(), {});
            CHECK(x.values() == logits);
            cross_entropy(ctx, x.in(), as_const(wanted.view()), 0.25f, losses.view(), x.view());
            CHECK(losses.values() == again.values());
            CHECK(support::near(losses.values(), expected, 2e-6));
            CHECK(support::near(x.values(), whole.dlogits.values, 2e-6));
            CHECK(x.gaps_kept());
          }
        }
  }

  TEST_CASE("the scale of the gradient comes from the step values where there are any") {
    cuda_backend ctx;
    const auto logits = support::normal_floats(30, 1);
    device_tensor x(ctx, 3, 10, logits), a(ctx, 3, 10), b(ctx, 3, 10);
    support::on_device<std::int32_t> targets(ctx, std::vector<std::int32_t>{4, -1, 0});
    support::on_device<float> losses(ctx, 3);
    gpu::step_values now;
    now.loss_scale = 0.125f;
    support::on_device<gpu::step_values> values(ctx, std::vector<gpu::step_values>{now});
    cross_entropy(ctx, x.in(), as_const(targets.view()), 0.125f, losses.view(), a.view());
    ctx.read_step_values(values.data());
    cross_entropy(ctx, x.in(), as_const(targets.view()), 99.0f, losses.view(), b.view());
    CHECK(a.values() == b.values());
  }

  TEST_CASE("missing logits count as the smallest, unless they are the wanted one") {
    cuda_backend ctx;
    device_tensor x(ctx, 2, 4, {0, NAN, 0, -INFINITY, 0, NAN, 0, 0}), d(ctx, 2, 4);
    support::on_device<std::int32_t> targets(ctx, std::vector<std::int32_t>{0, 1});
    support::on_device<float> losses(ctx, 2);
    cross_entropy(ctx, x.in(), as_const(targets.view()), 1.0f, losses.view(), d.view());
    CHECK(losses.values()[0] == doctest::Approx(std::log(2.0)));
    CHECK(std::isnan(losses.values()[1]));
    const std::vector<float> gradient = d.values();
    CHECK(std::vector<float>(gradient.begin(), gradient.begin() + 4) ==
          std::vector<float>{-0.5f, 0, 0.5f, 0});
  }

  TEST_CASE("embedding copies the rows that the ids name") {
    cuda_backend ctx;
    for (const index_t cols : {12, 13})
      for (const placement where : support::placements) {
        const auto values = support::normal_floats(9 * cols, 2);
        const std::vector<std::int32_t> ids = {8, 0, 3, 3};
        std::vector<float> expected;
        for (const std::int32_t id : ids)
          expected.insert(expected.end(), values.begin() + id * cols, values.begin() + (id + 1) * cols);
        device_tensor table(ctx, 9, cols, values, where), y(ctx, 4, cols, where);
        support::on_device<std::int32_t> names(ctx, ids);
        embedding(ctx, table.in(), as_const(names.view()), y.view());
        CHECK(y.values() == expected);
        CHECK(y.gaps_kept());
      }
    embedding(ctx, {}, {}, {});
  }
}

}  // namespace
