// SPDX-License-Identifier: Apache-2.0
#include "pesc/cpu/switch_gate.hpp"

#include "cpu/op_test.hpp"

namespace {

using namespace pesc;
using support::tensor;

TEST_CASE("switch_assign keeps the first tokens of an expert in each group and drops the rest") {
  for (const index_t experts : {1, 4, 8})
    for (const index_t capacity : {1, 3, 1000})
      for (const index_t group : {7, 40}) {
        CAPTURE(experts);
        CAPTURE(capacity);
        CAPTURE(group);
        constexpr index_t tokens = 40;
        const tensor logits = tensor::random(tokens, experts, 1);
        reference::router_options options;
        options.kind = reference::router_kind::switch_top_1;
        options.top_k = 1;
        options.capacity = capacity;
        options.group = group;
        const auto exact = reference::route_logits(options, logits.exact());
        std::vector<std::int32_t> offsets;
        for (index_t t = 0; t < tokens; t += group) offsets.push_back(static_cast<std::int32_t>(t));
        offsets.push_back(tokens);
        const std::vector<float> dgate = support::normal_floats(tokens, 2);
        std::vector<double> expected;
        for (const auto& a : exact.assignments) expected.push_back(a.gate);
        const auto d = reference::gates_backward(
            exact, reference::list<double>(std::vector<double>(dgate.begin(), dgate.end())));
        expected.insert(expected.end(), d.logits.values.begin(), d.logits.values.end());
        support::check_on_every_context(
            [&](cpu_backend& ctx) {
              std::vector<std::int32_t> expert(tokens), choice(tokens);
              std::vector<float> gate(tokens);
              support::with_scratch([&](workspace<>& ws) {
                switch_assign(
                    ctx, logits.view(),
                    vector_view<const std::int32_t>{offsets.data(), static_cast<index_t>(offsets.size())},
                    capacity, vector_view<std::int32_t>{expert.data(), tokens},
                    vector_view<float>{gate.data(), tokens}, vector_view<std::int32_t>{choice.data(), tokens},
                    ws);
              });
              for (index_t t = 0; t < tokens; ++t) {
                const auto& a = exact.assignments[t];
                CHECK(choice[static_cast<std::size_t>(t)] == a.expert);
                CHECK(expert[static_cast<std::size_t>(t)] == (a.kept ? a.expert : experts));
              }
              tensor dlogits(tokens, experts);
              switch_backward(ctx, logits.view(), vector_view<const std::int32_t>{expert.data(), tokens},
                              vector_view<const float>{dgate.data(), tokens}, dlogits.view());
              std::vector<float> result = gate;
              const std::vector<float> back = dlogits.values();
              result.insert(result.end(), back.begin(), back.end());
              return result;
            },
            expected, 1e-6);
      }
}

TEST_CASE("ties and NaN choose the first expert") {
  cpu_backend ctx(1);
  const std::vector<float> logits = {1, 1, 0, NAN, NAN, NAN, NAN, 2, 2};
  const std::vector<std::int32_t> offsets = {0, 3};
  std::vector<std::int32_t> expert(3);
  std::vector<float> gate(3);
  support::with_scratch([&](workspace<>& ws) {
    switch_assign(ctx, matrix_view<const float>{logits.data(), 3, 3},
                  vector_view<const std::int32_t>{offsets.data(), 2}, 10,
                  vector_view<std::int32_t>{expert.data(), 3}, vector_view<float>{gate.data(), 3}, {}, ws);
  });
  CHECK(expert == std::vector<std::int32_t>{0, 0, 1});
  CHECK(gate[1] == doctest::Approx(1.0 / 3));
  CHECK(gate[2] == doctest::Approx(0.5));
}

}  // namespace
