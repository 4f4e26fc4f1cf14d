// SPDX-License-Identifier: Apache-2.0
// One layer, several threads, each with its own context and buffers.

#include <atomic>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include "pesc/pesc.hpp"
#include "support/layer_run.hpp"

namespace {

using pesc::index_t;
using backend = pesc::cpu_backend;

struct layer_config : pesc::moe_defaults {
  static constexpr int experts = 4;
  using expert = pesc::adapter_expert<8>;
  using lora = pesc::lora<4>;
};
using layer_type = pesc::moe_layer<layer_config, backend>;

constexpr pesc::moe_shape shape{.hidden = 96, .intermediate = 140};
constexpr index_t tokens = 37;

/// Results of one caller: two rounds of forward and backward with dropout.
std::vector<float> work(const layer_type& layer, std::uint64_t seed) {
  backend ctx(2);
  auto buffers = layer.prepare(ctx, tokens);
  support::layer_run io(layer, tokens, seed);
  for (std::uint32_t step = 0; step < 2; ++step) {
    io.forward(ctx, layer, buffers, {.training = true, .seed = seed, .step = step});
    io.backward(ctx, layer, buffers);
  }
  return io.results();
}

}  // namespace

TEST_SUITE("moe/concurrency") {
  TEST_CASE(
      "threads with their own context and buffers run one const layer at once and get the bits of a single "
      "thread") {
    backend ctx(1);
    layer_type made(ctx, shape, {.adapter_dropout = 0.1f, .lora_dropout = 0.1f});
    support::fill_trainables(made.parameters(), 5);
    const layer_type& layer = made;

    constexpr std::size_t callers = 3;
    std::vector<std::vector<float>> expected(callers);
    for (std::size_t i = 0; i < callers; ++i) expected[i] = work(layer, i);
    REQUIRE_FALSE(support::same_bits(expected[0], expected[1]));

    for (int round = 0; round < 4; ++round) {
      std::vector<std::vector<float>> results(callers);
      std::vector<std::thread> threads;
      std::atomic<bool> start{false};
      for (std::size_t i = 0; i < callers; ++i)
        threads.emplace_back([&, i] {
          while (!start) std::this_thread::yield();
          results[i] = work(layer, i);
        });
      start = true;
      for (std::thread& thread : threads) thread.join();
      for (std::size_t i = 0; i < callers; ++i) CHECK(support::same_bits(results[i], expected[i]));
    }
  }
}
