// SPDX-License-Identifier: Apache-2.0
#include "pesc/cpu/slots.hpp"

#include "cpu/op_test.hpp"
#include "pesc/cpu/routing.hpp"

namespace {

using namespace pesc;
using support::tensor;

TEST_CASE("slots are numbered token by token, values travel by index") {
  cpu_backend ctx(1);
  std::vector<std::int32_t> token(6);
  number_slots(ctx, 3, vector_view<std::int32_t>{token.data(), 6});
  CHECK(token == std::vector<std::int32_t>{0, 0, 0, 1, 1, 1});
  const std::vector<float> values = {10, 20, 30};
  const std::vector<std::int32_t> index = {2, -1, 0, 3};
  std::vector<float> y(4, 7.0f);
  gather_values(ctx, vector_view<const float>{values.data(), 3},
                vector_view<const std::int32_t>{index.data(), 4}, vector_view<float>{y.data(), 4});
  CHECK(y == std::vector<float>{30, 0, 10, 0});
  scatter_values(ctx, vector_view<const float>{values.data(), 3},
                 vector_view<const std::int32_t>{index.data(), 4}, vector_view<float>{y.data(), 4});
  CHECK(y == std::vector<float>{30, 0, 10, 0});
}

TEST_CASE("scale_rows multiplies each row by its factor") {
  const tensor x = tensor::random(300, 21, 1);
  const std::vector<float> scale = support::normal_floats(300, 2);
  std::vector<double> expected;
  for (index_t i = 0; i < 300; ++i)
    for (index_t j = 0; j < 21; ++j)
      expected.push_back(static_cast<double>(scale[static_cast<std::size_t>(i)]) * x.exact(i, j));
  support::check_on_every_context(
      [&](cpu_backend& ctx) {
        tensor y = x;
        scale_rows(ctx, vector_view<const float>{scale.data(), 300}, y.view());
        CHECK(y.gaps_kept());
        return y.values();
      },
      expected, 2e-7);
}

TEST_CASE("combine_rows_backward is the derivative of combine_rows by h and by the gates of rho") {
  constexpr index_t tokens = 5, experts = 3, cols = 11, n = 8;
  const std::vector<std::int32_t> token = {0, 1, 1, 2, 2, 4, 4, 4}, expert = {0, 1, 2, 3, 0, 3, 3, 1};
  const tensor h = tensor::random(tokens, cols, 1), dy = tensor::random(tokens, cols, 2);
  const std::vector<float> gate = support::uniform_floats(n, 3, 0.1, 1);
  std::vector<std::int32_t> expert_offsets(experts + 1), slots(n), slot_of(n), token_of(n),
      token_offsets(tokens + 1), token_slots(n);
  const slot_groups<> groups{experts,
                             tokens,
                             {expert_offsets.data(), experts + 1},
                             {slots.data(), n},
                             {slot_of.data(), n},
                             {token_of.data(), n},
                             {token_offsets.data(), tokens + 1},
                             {token_slots.data(), n}};
  {
    cpu_backend ctx(1);
    auto ws = support::no_scratch();
    group_by_expert(ctx, vector_view<const std::int32_t>{token.data(), n},
                    vector_view<const std::int32_t>{expert.data(), n}, groups, ws);
  }
  for (const bool gate_sum : {false, true}) {
    std::vector<double> expected, dgates(n, 0.5);
    for (index_t t = 0; t < tokens; ++t) {
      double rho = gate_sum ? 0 : 1, product = 0;
      for (index_t j = 0; j < cols; ++j) product += dy.exact(t, j) * h.exact(t, j);
      for (std::size_t s = 0; s < n; ++s)
        if (gate_sum && token[s] == t && expert[s] < experts) {
          rho += static_cast<double>(gate[s]);
          dgates[s] += product;
        }
      for (index_t j = 0; j < cols; ++j) expected.push_back(1 + rho * dy.exact(t, j));
    }
    expected.insert(expected.end(), dgates.begin(), dgates.end());
    support::check_on_every_context(
        [&](cpu_backend& ctx) {
          tensor dh(tokens, cols);
          fill(ctx, dh.view(), 1.0f);
          std::vector<float> dgate(n, 0.5f);
          combine_rows_backward(ctx, dy.view(), h.view(), vector_view<const float>{gate.data(), n}, groups,
                                gate_sum, dh.view(), vector_view<float>{dgate.data(), n});
          CHECK(dh.gaps_kept());
          std::vector<float> result = dh.values();
          result.insert(result.end(), dgate.begin(), dgate.end());
          return result;
        },
        expected, 1e-6);
  }
}

}  // namespace
