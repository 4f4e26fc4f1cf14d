// SPDX-License-Identifier: Apache-2.0
#include "pesc/cpu/loss.hpp"

#include "cpu/op_test.hpp"

namespace {

using namespace pesc;
using support::tensor;

TEST_CASE("cross_entropy and its gradient agree with double precision") {
  for (const index_t rows : {0, 1, 7, 65})
    for (const index_t vocabulary : {1, 3, 50, 512, 1003})
      for (const double deviation : {1.0, 40.0}) {
        CAPTURE(rows);
        CAPTURE(vocabulary);
        const tensor logits = tensor::random(rows, vocabulary, 1, deviation);
        std::vector<std::int32_t> targets;
        reference::list<index_t> exact_targets;
        for (index_t t = 0; t < rows; ++t) {
          const index_t target = t % 5 == 3 ? -1 : t * 31 % vocabulary;
          targets.push_back(static_cast<std::int32_t>(target));
          exact_targets.push_back(target);
        }
        const auto whole = reference::cross_entropy(logits.exact(), exact_targets, 4.0);
        std::vector<double> expected = whole.dlogits.values;
        for (index_t t = 0; t < rows; ++t) {
          reference::list<index_t> one(rows, -1);
          one[t] = exact_targets[t];
          expected.push_back(reference::cross_entropy(logits.exact(), one, 1.0).loss / deviation);
        }
        const vector_view<const std::int32_t> wanted(targets.data(), rows);
        support::check_on_every_context(
            [&](cpu_backend& ctx) {
              tensor d = logits;
              std::vector<float> losses(static_cast<std::size_t>(rows)), again = losses;
              cross_entropy(ctx, logits.view(), wanted, 0.25f, vector_view<float>{again.data(), rows},
                            matrix_view<float>{});
              cross_entropy(ctx, as_const(d.view()), wanted, 0.25f, vector_view<float>{losses.data(), rows},
                            d.view());
              CHECK(losses == again);
              CHECK(d.gaps_kept());
              std::vector<float> result = d.values();
              for (const float loss : losses) result.push_back(loss / static_cast<float>(deviation));
              return result;
            },
            expected, 2e-6);
      }
}

TEST_CASE("embedding copies the rows that the ids name") {
  const tensor table = tensor::random(9, 13, 2);
  const std::vector<std::int32_t> ids = {8, 0, 3, 3};
  std::vector<float> expected;
  for (const std::int32_t id : ids)
    expected.insert(expected.end(), table.view().row(id), table.view().row(id) + 13);
  support::on_every_context(
      [&](cpu_backend& ctx) {
        tensor y(4, 13);
        embedding(ctx, table.view(), vector_view<const std::int32_t>{ids.data(), 4}, y.view());
        CHECK(y.gaps_kept());
        return y.values();
      },
      [&](const std::vector<float>& y) { CHECK(y == expected); });
}

}  // namespace
