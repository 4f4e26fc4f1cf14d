// SPDX-License-Identifier: Apache-2.0
#include "pesc/moe/parameters.hpp"

#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "pesc/moe/layer.hpp"
#include "support/message_of.hpp"

namespace {

using pesc::index_t;

struct config : pesc::moe_defaults {
  static constexpr int experts = 3;
  using expert = pesc::adapter_expert<5>;
  using lora = pesc::lora<2>;
};
using trainables = pesc::moe_trainables<config>;

const pesc::moe_shape shape = pesc::complete<config>({.hidden = 7, .intermediate = 11});

}  // namespace

TEST_SUITE("moe/parameters") {
  TEST_CASE(
      "the tensors lie behind one another in the order in which they are visited, each on a cache line") {
    std::vector<float> memory(static_cast<std::size_t>(trainables::size(shape)));
    pesc::parameter_arena<> arena(memory.data(), static_cast<index_t>(memory.size()));
    const trainables views = trainables::carve(arena, shape);
    struct entry {
      std::string name;
      index_t count, rows, cols;
    };
    const entry expected[] = {
        {"router", 1, 3, 7},           {"adapter_down", 3, 5, 7},      {"adapter_up", 3, 7, 5},
        {"gate_proj.lora_A", 1, 2, 7}, {"gate_proj.lora_B", 1, 11, 2}, {"up_proj.lora_A", 1, 2, 7},
        {"up_proj.lora_B", 1, 11, 2},  {"down_proj.lora_A", 1, 2, 11}, {"down_proj.lora_B", 1, 7, 2}};
    std::size_t visited = 0;
    index_t next = 0;
    views.for_each([&](const std::string& name, pesc::batch_view<float> tensor) {
      REQUIRE(visited < 9);
      CHECK(name == expected[visited].name);
      CHECK(tensor.count == expected[visited].count);
      CHECK(tensor.rows == expected[visited].rows);
      CHECK(tensor.cols == expected[visited].cols);
      CHECK(tensor.data - memory.data() == next);
      next += pesc::round_up(tensor.size(), 16);
      ++visited;
    });
    CHECK(visited == 9);
    CHECK(next == trainables::size(shape));
  }

  TEST_CASE("an arena that is too small is refused with the numbers") {
    std::vector<float> memory(100);
    pesc::parameter_arena<> arena(memory.data(), 100);
    CHECK(support::message_of<pesc::shape_error>([&] {
            static_cast<void>(trainables::carve(arena, shape));
          }) == "parameter arena of 100 floats is too small, at least 144 are needed");
  }

  TEST_CASE("the start has zero in every matrix that closes a path, and small numbers elsewhere") {
    pesc::owned_parameters<config> p(shape);
    p.views().initialize(1);
    p.views().for_each([](const std::string& name, pesc::batch_view<float> tensor) {
      CAPTURE(name);
      const bool closes = name == "adapter_up" || name.ends_with("lora_B");
      const float bound = 1.0f / std::sqrt(static_cast<float>(tensor.cols));
      int zeros = 0;
      for (index_t i = 0; i < tensor.size(); ++i) {
        zeros += tensor.data[i] == 0.0f ? 1 : 0;
        CHECK(std::abs(tensor.data[i]) <= bound);
      }
      CHECK(zeros == (closes ? tensor.size() : 0));
    });
  }

  TEST_CASE("the start depends on seed and layer, and no two tensors share their numbers") {
    const auto start = [](std::uint64_t seed, std::uint16_t layer) {
      pesc::owned_parameters<config> p(shape);
      p.views().initialize(seed, layer);
      return std::vector<float>(p.arena().begin(), p.arena().end());
    };
    CHECK(start(1, 0) == start(1, 0));
    CHECK(start(1, 0) != start(2, 0));
    CHECK(start(1, 0) != start(1, 1));
    pesc::owned_parameters<config> p(shape);
    p.views().initialize(1);
    const auto& views = p.views();
    const float first[] = {views.router.weight.data[0], views.experts.down.data[0],
                           views.shared.gate.a.data[0], views.shared.up.a.data[0]};
    for (const float& a : first)
      for (const float& b : first) CHECK((&a == &b || a != b));
    CHECK(views.experts.down[0](0, 0) != views.experts.down[1](0, 0));
  }

  TEST_CASE("without LoRA and with an empty rank there is nothing of it in the arena") {
    struct plain : pesc::moe_defaults {
      using expert = pesc::adapter_expert<5>;
    };
    const pesc::moe_shape s = pesc::complete<plain>({.hidden = 7, .intermediate = 11});
    CHECK(pesc::moe_trainables<plain>::size(s) == 64 + 288 + 288);
  }
}
