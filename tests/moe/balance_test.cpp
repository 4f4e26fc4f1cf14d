// SPDX-License-Identifier: Apache-2.0
#include "pesc/moe/balance.hpp"

#include <vector>

#include <doctest/doctest.h>

#include "moe/stage_test.hpp"

namespace {

using pesc::balance_kind;
using pesc::index_t;
using support::numbers;

// Four rows over four experts, top-2; the second ties everywhere.
std::vector<float> four_rows{1, 2, 0.5f, -1, 0, 0, 0, 0, 3, -1, 2, 2.5f, -0.5f, 1.5f, 1.25f, 0};
std::vector<std::int32_t> four_choices{1, 0, 0, 1, 0, 3, 1, 2};
std::vector<std::int32_t> four_tokens{0, 0, 1, 1, 2, 2, 3, 3};

support::plain_context ctx;

void accumulate(pesc::balance_pool<>& pool, pesc::matrix_view<const float> logits,
                const std::vector<std::int32_t>& token, const std::vector<std::int32_t>& expert,
                const std::vector<std::uint8_t>& valid = {}) {
  support::run_stage([&](pesc::workspace<>& ws) {
    balance_accumulate(ctx, logits, std::span(token), std::span(expert), std::span(valid), pool.sums(), ws);
  });
}

pesc::balance_pool<> four_row_pool(const std::vector<std::uint8_t>& valid = {}) {
  pesc::balance_pool pool(4, 2);
  accumulate(pool, {four_rows.data(), 4, 4}, four_tokens, four_choices, valid);
  return pool;
}

/// What the gradient of a pool adds to the logits' gradient.
std::vector<float> dlogits_of(pesc::balance_pool<>& pool, const pesc::balance_options& options,
                              const std::vector<std::uint8_t>& valid = {}) {
  std::vector<float> out(16, 0.0f);
  const auto g = pool.gradient(ctx, options, std::span(valid));
  if (g.active())
    balance_backward(ctx, pesc::matrix_view<const float>(four_rows.data(), 4, 4), g.valid, g.fractions,
                     g.scale, g.z_scale, pesc::matrix_view<float>(out.data(), 4, 4), g.rows);
  return out;
}

}  // namespace

TEST_SUITE("moe/balance") {
  TEST_CASE("the losses of the four rows are the known ones") {
    auto pool = four_row_pool();
    const auto counts = pool.values(ctx, {}).counts;
    CHECK(std::vector<double>(counts.begin(), counts.end()) == std::vector<double>{3, 3, 1, 1});
    CHECK(pool.values(ctx, {}).balance == doctest::Approx(2.187946707630509).epsilon(1e-6));
    CHECK(pool.values(ctx, {.per_slot = true}).balance == doctest::Approx(1.093973353815).epsilon(1e-6));
    CHECK(pool.values(ctx, {.kind = balance_kind::none}).balance == 0.0);
    CHECK(pool.values(ctx, {}).z == doctest::Approx(6.716411246776808).epsilon(1e-6));
    CHECK(four_row_pool({1, 1, 1, 0}).values(ctx, {}).balance ==
          doctest::Approx(2.333385439459303).epsilon(1e-6));
  }

  TEST_CASE("the gradients of the four rows are the known ones") {
    auto pool = four_row_pool();
    CHECK(support::near(dlogits_of(pool, {.coefficient = 1}),
                        std::vector{0.018646484, 0.050686397, -0.056684794, -0.012648087, 0.0625, 0.0625,
                                    -0.0625, -0.0625, 0.122692134, 0.002247185, -0.047169674, -0.077769645,
                                    0.014842313, 0.109670683, -0.096783934, -0.027729061},
                        1e-6));
    const double b = 0.173286795;
    CHECK(support::near(
        dlogits_of(pool, {.kind = balance_kind::none, .z_coefficient = 1}),
        std::vector{0.279719645, 0.760356827, 0.169658541, 0.037855937, b, b, b, b, 0.925742902, 0.016955573,
                    0.340561782, 0.561491453, 0.071538538, 0.528602268, 0.411675860, 0.117947109},
        1e-6));
    // Per slot, the loss and its gradient are those divided by k.
    auto whole = dlogits_of(pool, {.coefficient = 1});
    for (float& value : whole) value /= 2;
    CHECK(support::near(dlogits_of(pool, {.coefficient = 1, .per_slot = true}), whole, 1e-6));
  }

  TEST_CASE(
      "the constant of the published code is experts over top-k for any routing, and its gradient is zero") {
    auto pool = four_row_pool();
    const pesc::balance_options constant{.kind = balance_kind::camelidae_constant, .coefficient = 1};
    CHECK(pool.values(ctx, constant).balance == 2.0);
    CHECK(dlogits_of(pool, constant) == std::vector<float>(16, 0.0f));
    pesc::balance_pool other(8, 2);
    const std::vector<float> logits = support::normal_floats(24, 1);
    accumulate(other, {logits.data(), 3, 8}, {0, 0, 1, 1, 2, 2}, {7, 7, 7, 7, 7, 7});
    CHECK(other.values(ctx, constant).balance == 4.0);
  }

  TEST_CASE("rows that do not count have no part in the sums and no gradient") {
    const std::vector<std::uint8_t> valid{1, 0, 1, 0};
    auto pool = four_row_pool(valid);
    pesc::balance_pool two(4, 2);
    const std::vector<float> rows{1, 2, 0.5f, -1, 3, -1, 2, 2.5f};
    accumulate(two, {rows.data(), 2, 4}, {0, 0, 1, 1}, {1, 0, 0, 3});
    CHECK(pool.values(ctx, {}).balance == doctest::Approx(two.values(ctx, {}).balance).epsilon(1e-12));
    CHECK(pool.values(ctx, {}).z == doctest::Approx(two.values(ctx, {}).z).epsilon(1e-12));
    const auto gradient = dlogits_of(pool, {.coefficient = 1, .z_coefficient = 1}, valid);
    for (std::size_t i = 0; i < 16; ++i) CHECK((gradient[i] != 0.0f) == (valid[i / 4] != 0));
  }

  TEST_CASE("layers are pooled before the product, which is not the mean of their losses") {
    const std::vector<float> second = support::normal_floats(16, 3);
    const std::vector<std::int32_t> choices{2, 3, 2, 0, 3, 2, 3, 1};
    pesc::balance_pool one = four_row_pool();
    pesc::balance_pool other(4, 2);
    accumulate(other, {second.data(), 4, 4}, four_tokens, choices);
    pesc::balance_pool both = four_row_pool();
    accumulate(both, {second.data(), 4, 4}, four_tokens, choices);

    std::vector<float> stacked = four_rows;
    stacked.insert(stacked.end(), second.begin(), second.end());
    std::vector<std::int32_t> all_choices = four_choices;
    all_choices.insert(all_choices.end(), choices.begin(), choices.end());
    pesc::balance_pool once(4, 2);
    accumulate(once, {stacked.data(), 8, 4}, {0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7}, all_choices);
    CHECK(both.values(ctx, {}).balance == doctest::Approx(once.values(ctx, {}).balance).epsilon(1e-12));
    CHECK(both.values(ctx, {}).balance !=
          doctest::Approx((one.values(ctx, {}).balance + other.values(ctx, {}).balance) / 2).epsilon(1e-3));
    CHECK(both.values(ctx, {}).z ==
          doctest::Approx((one.values(ctx, {}).z + other.values(ctx, {}).z) / 2).epsilon(1e-9));

    both.clear(ctx);
    CHECK(both.values(ctx, {}).balance == 0.0);
    accumulate(both, {four_rows.data(), 4, 4}, four_tokens, four_choices);
    CHECK(both.values(ctx, {}).balance == one.values(ctx, {}).balance);
  }

  TEST_CASE("a balanced router has the loss k, and one that sends all to one expert the loss E") {
    const std::vector<float> even(16, 0.0f);
    pesc::balance_pool balanced(4, 2);
    accumulate(balanced, {even.data(), 4, 4}, four_tokens, {0, 1, 2, 3, 0, 1, 2, 3});
    CHECK(balanced.values(ctx, {}).balance == doctest::Approx(2.0));
    const std::vector<float> sure{50, 0, 0, 0, 50, 0, 0, 0};
    pesc::balance_pool collapsed(4, 1);
    accumulate(collapsed, {sure.data(), 2, 4}, {0, 1}, {0, 0});
    CHECK(collapsed.values(ctx, {}).balance == doctest::Approx(4.0));
  }

  TEST_CASE("without rows, losses and gradient are zero") {
    pesc::balance_pool pool(4, 2);
    CHECK(pool.values(ctx, {}).balance == 0.0);
    CHECK(pool.values(ctx, {}).z == 0.0);
    CHECK(dlogits_of(pool, {.coefficient = 1, .z_coefficient = 1}) == std::vector<float>(16, 0.0f));
    auto masked = four_row_pool({0, 0, 0, 0});
    CHECK(masked.values(ctx, {}).balance == 0.0);
    CHECK(dlogits_of(masked, {.coefficient = 1}) == std::vector<float>(16, 0.0f));
    CHECK(pesc::balance_pool<>{}.values(ctx, {}).balance == 0.0);
  }
}
