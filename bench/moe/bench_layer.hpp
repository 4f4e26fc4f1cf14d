// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include "pesc/pesc.hpp"

namespace bench {

using pesc::index_t;
using backend = pesc::cpu_backend;

/// \brief The layer that is timed: E = 8, top-2, rank 64, LoRA 16, nf4 with double-quantised scales.
template <class Compute>
struct layer_config : pesc::moe_defaults {
  static constexpr int experts = 8;
  using expert = pesc::adapter_expert<64>;
  using lora = pesc::lora<16>;
  using compute = Compute;
};
using weight_format = pesc::moe_defaults::weight;

inline constexpr index_t experts = 8;
inline constexpr index_t top_k = 2;
inline constexpr index_t rank = 64;
inline constexpr index_t lora_rank = 16;

/// \brief Width of the feed-forward network of Llama-type models of this hidden size.
inline index_t intermediate_of(index_t hidden) {
  return hidden == 4096 ? 11008 : (hidden * 11008 / 4096 + 63) / 64 * 64;
}

inline std::vector<float> uniform(index_t n, std::uint32_t seed) {
  std::vector<float> out(static_cast<std::size_t>(n));
  pesc::fill_uniform({out.data(), 1, 1, n}, 1, {.seed = seed});
  return out;
}

/// \brief A packed weight of random codes and scales: any byte is valid, and quantising would take longer than the bench.
inline pesc::quantized_matrix<weight_format, pesc::panels> random_weight(index_t rows, index_t cols,
                                                                         std::uint32_t seed) {
  pesc::quantized_matrix<weight_format, pesc::panels> out(weight_format::info(), rows, cols);
  std::uint32_t state = seed * 2654435761u + 1u;
  for (std::uint8_t& byte : out.codes()) {
    state = state * 1664525u + 1013904223u;
    byte = static_cast<std::uint8_t>(state >> 24);
  }
  for (float& scale : out.nested_absmax()) scale = 0.01f;
  std::copy(pesc::dynamic_map().begin(), pesc::dynamic_map().end(), out.map().begin());
  out.offset() = 0.02f;
  return out;
}

/// \brief The layer of a hidden size, made once for all benches of a program.
template <class Compute>
const pesc::moe_layer<layer_config<Compute>, backend>& layer_of(backend& ctx, index_t hidden) {
  using layer_type = pesc::moe_layer<layer_config<Compute>, backend>;
  static std::map<index_t, std::unique_ptr<layer_type>> made;
  std::unique_ptr<layer_type>& layer = made[hidden];
  if (layer) return *layer;
  const index_t wide = intermediate_of(hidden);
  pesc::frozen_ffn<weight_format> weights;
  weights.gate = random_weight(wide, hidden, 1);
  weights.up = random_weight(wide, hidden, 2);
  weights.down = random_weight(hidden, wide, 3);
  layer = std::make_unique<layer_type>(ctx, pesc::moe_shape{.hidden = hidden, .intermediate = wide},
                                       std::move(weights));
  const auto& p = layer->parameters();
  pesc::fill_uniform(p.experts.up, rank, {.seed = 4});
  for (const auto* part : {&p.shared.gate, &p.shared.up, &p.shared.down})
    pesc::fill_uniform(pesc::as_batch(part->b), 64, {.seed = 5});
  return *layer;
}

/// \brief Multiply-adds of one token.
struct cost {
  double ffn, lora, adapters, router;

  explicit cost(index_t hidden) {
    const auto h = static_cast<double>(hidden);
    const auto f = static_cast<double>(intermediate_of(hidden));
    ffn = 3 * h * f;
    lora = 3 * (h + f) * lora_rank;
    adapters = 2.0 * top_k * h * rank;
    router = static_cast<double>(experts) * h;
  }
  [[nodiscard]] double forward() const { return ffn + lora + adapters + router; }
  /// Frozen weights have no gradient of their own; every trainable product has two.
  [[nodiscard]] double backward() const { return ffn + 2 * (lora + adapters + router); }
};

/// \brief Tokens and floating-point operations a second of the finished loop.
inline void report(benchmark::State& state, index_t tokens, double multiply_adds_per_token) {
  const double done = static_cast<double>(state.iterations()) * static_cast<double>(tokens);
  state.counters["tokens/s"] = benchmark::Counter(done, benchmark::Counter::kIsRate);
  state.counters["FLOP/s"] =
      benchmark::Counter(2 * done * multiply_adds_per_token, benchmark::Counter::kIsRate);
}

/// \brief Tokens 1, 16, 256 by hidden size 1024, 4096.
inline void sizes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"tokens", "hidden"})
      ->ArgsProduct({{1, 16, 256}, {1024, 4096}})
      ->UseRealTime()
      ->Unit(benchmark::kMicrosecond);
}

}  // namespace bench
