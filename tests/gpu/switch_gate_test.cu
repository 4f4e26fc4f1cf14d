// SPDX-License-Identifier: Apache-2.0
#include "gpu/device_tensor.hpp"
#include "pesc/gpu/switch_gate.cuh"
#include "support/reference_router.hpp"

namespace {

using namespace pesc;
using support::device_tensor;
using support::on_device;

struct assigned {
  std::vector<std::int32_t> expert, choice;
  std::vector<float> gate;
};

assigned assign(gpu::context& ctx, device_tensor& logits, const std::vector<std::int32_t>& group_offsets,
                index_t capacity, bool with_choice = true) {
  const index_t tokens = logits.view().rows;
  on_device<std::int32_t> offsets(ctx, group_offsets), expert(ctx, tokens),
      choice(ctx, with_choice ? tokens : 0);
  on_device<float> gate(ctx, tokens);
  support::with_device_scratch([&](workspace<device_space>& ws) {
    switch_assign(ctx, logits.in(), offsets.view(), capacity, expert.view(), gate.view(), choice.view(), ws);
  });
  return {expert.values(), choice.values(), gate.values()};
}

TEST_SUITE("gpu/switch_gate") {
  TEST_CASE("switch_assign keeps the first tokens of an expert in each group and drops the rest") {
    cuda_backend ctx;
    for (const index_t experts : {1, 4, 8, 37})
      for (const index_t capacity : {1, 3, 1000})
        for (const index_t group : {7, 70, 200}) {
          CAPTURE(experts);
          CAPTURE(capacity);
          CAPTURE(group);
          constexpr index_t tokens = 200;
          const auto x = support::normal_floats(tokens * experts, 1);
          reference::router_options options;
          options.kind = reference::router_kind::switch_top_1;
          options.top_k = 1;
          options.capacity = capacity;
          options.group = group;
          const auto exact = reference::route_logits(options, support::exact(tokens, experts, x));
          on_device<std::int32_t> numbered(ctx, ceil_div(tokens, group) + 1);
          number_groups(ctx, group, tokens, numbered.view());
          std::vector<std::int32_t> offsets;
          for (index_t t = 0; t < tokens; t += group) offsets.push_back(static_cast<std::int32_t>(t));
          offsets.push_back(tokens);
          CHECK(numbered.values() == offsets);
          device_tensor logits(ctx, tokens, experts, x), dlogits(ctx, tokens, experts);
          const assigned result = assign(ctx, logits, offsets, capacity);
          std::vector<std::int32_t> kept, chosen;
          std::vector<double> gates;
          for (const auto& a : exact.assignments) {
            chosen.push_back(static_cast<std::int32_t>(a.expert));
            kept.push_back(static_cast<std::int32_t>(a.kept ? a.expert : experts));
            gates.push_back(a.gate);
          }
          CHECK(result.choice == chosen);
          CHECK(result.expert == kept);
          CHECK(support::near(result.gate, gates, 1e-6));

          const auto dgates = support::normal_floats(tokens, 2);
          const auto d = reference::gates_backward(
              exact, reference::list<double>(std::vector<double>(dgates.begin(), dgates.end())));
          on_device<std::int32_t> expert(ctx, result.expert);
          on_device<float> dgate(ctx, dgates);
          switch_backward(ctx, logits.in(), expert.view(), dgate.view(), dlogits.view());
          CHECK(support::near(dlogits.values(), d.logits.values, 1e-6, 1e-2));
          CHECK(dlogits.gaps_kept());
        }
  }

  TEST_CASE("ties and NaN choose the first expert") {
    cuda_backend ctx;
    device_tensor logits(ctx, 3, 3, {1, 1, 0, NAN, NAN, NAN, NAN, 2, 2});
    const assigned result = assign(ctx, logits, {0, 3}, 10, false);
    CHECK(result.expert == std::vector<std::int32_t>{0, 0, 1});
    CHECK(result.gate[1] == doctest::Approx(1.0 / 3));
    CHECK(result.gate[2] == doctest::Approx(0.5));
  }

  TEST_CASE("no rows, no groups and empty groups are fine") {
    cuda_backend ctx;
    device_tensor none(ctx, 0, 4), some(ctx, 5, 2, {1, 0, 1, 0, 0, 1, 1, 0, 1, 0});
    CHECK(assign(ctx, none, {0}, 1).expert.empty());
    CHECK(assign(ctx, some, {0, 0, 2, 2, 5}, 1).expert == std::vector<std::int32_t>{0, 2, 1, 0, 2});
    CHECK(assign(ctx, some, {0}, 1).expert == std::vector<std::int32_t>{0, 0, 1, 0, 0});
  }
}

}  // namespace
