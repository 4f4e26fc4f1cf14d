// SPDX-License-Identifier: Apache-2.0
// Forward, backward and the step of the optimiser work in memory that was prepared before.

#include <cstdlib>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "pesc/pesc.hpp"
#include "support/count_allocations.hpp"
#include "support/host_isas.hpp"
#include "support/layer_run.hpp"

namespace {

using pesc::index_t;
using backend = pesc::cpu_backend;

struct float_layer : pesc::moe_dynamic<> {};

constexpr pesc::moe_shape shape{
    .hidden = 72, .intermediate = 100, .experts = 5, .top_k = 2, .rank = 7, .lora_rank = 3};
constexpr pesc::moe_options all_options{
    .expert_scale = 0.5f, .adapter_dropout = 0.1f, .lora_dropout = 0.1f, .recompute_ffn = true};

/// One training step with everything that a step may do.
template <class Layer>
void step(backend& ctx, const Layer& layer, support::layer_run<Layer>& io, typename Layer::buffers& buffers,
          pesc::balance_pool<>& pool, pesc::owned_parameters<typename Layer::config>& m,
          pesc::owned_parameters<typename Layer::config>& v, pesc::vector_view<float> parameters) {
  io.forward(ctx, layer, buffers, {.training = true, .seed = 3});
  pool.clear(ctx);
  layer.pool_balance(ctx, pool, buffers);
  io.backward(ctx, layer, buffers, pool.gradient(ctx, {.coefficient = 0.01f, .z_coefficient = 0.001f}));
  const double norm = std::sqrt(squared_norm(ctx, std::as_const(io.gradients).arena()));
  adamw_step(ctx, parameters, std::as_const(io.gradients).arena(), m.arena(), v.arena(),
             pesc::adamw_step_coefficients({}, 1e-3, 1, pesc::clip_factor(norm, 1.0)));
}

long allocations_of_steps(pesc::cpu::isa level, int threads, const pesc::moe_options& options,
                          const pesc::format_info& format) {
  backend ctx(threads, pesc::cpu::runtime_isa{level});
  pesc::moe_layer<float_layer, backend> layer(ctx, shape, options, 1, &format);
  support::fill_trainables(layer.parameters(), 1);
  auto m = layer.make_gradients();
  auto v = layer.make_gradients();
  auto parameters = layer.make_gradients();
  constexpr index_t most = 70;
  auto buffers = layer.prepare(ctx, most);
  pesc::balance_pool pool(shape.experts, shape.top_k);
  long allocations = 0;
  for (const index_t tokens : {most, index_t{1}, index_t{2}, index_t{17}, index_t{0}}) {
    support::layer_run io(layer, tokens);
    allocations +=
        support::allocations_of([&] { step(ctx, layer, io, buffers, pool, m, v, parameters.arena()); });
  }
  return allocations;
}

}  // namespace

TEST_SUITE("moe/allocation") {
  TEST_CASE("the counter sees every way to allocate") {
    // Through volatile pointers, so that the compiler cannot leave a pair of allocation and release out.
    void* (*volatile const from_malloc)(std::size_t) = &std::malloc;
    void* (*volatile const from_calloc)(std::size_t, std::size_t) = &std::calloc;
    void* (*volatile const from_realloc)(void*, std::size_t) = &std::realloc;
    void* (*volatile const from_aligned)(std::size_t, std::size_t) = &std::aligned_alloc;
    int (*volatile const from_posix)(void**, std::size_t, std::size_t) = &::posix_memalign;
    CHECK(support::allocations_of([&] { std::free(from_malloc(10)); }) == 1);
    CHECK(support::allocations_of([&] { std::free(from_calloc(2, 10)); }) == 1);
    CHECK(support::allocations_of([&] { std::free(from_realloc(nullptr, 10)); }) == 1);
#if !SUPPORT_SANITIZED  // a sanitizer's hooks do not hear of aligned memory
    CHECK(support::allocations_of([&] { std::free(from_aligned(64, 64)); }) == 1);
    void* data = nullptr;
    CHECK(support::allocations_of([&] { static_cast<void>(from_posix(&data, 64, 64)); }) == 1);
    std::free(data);
#else
    static_cast<void>(from_aligned);
    static_cast<void>(from_posix);
#endif
    CHECK(support::allocations_of([] { pesc::buffer<float>(1000); }) == 1);
    const float* volatile seen = nullptr;
    CHECK(support::allocations_of([&] {
            const std::vector<float> list(1000);
            seen = list.data();
          }) == 1);
    CHECK(support::allocations_of([] {}) == 0);
  }

  TEST_CASE(
      "forward, backward and the step of the optimiser do not allocate, on any instruction set and number of "
      "threads") {
    const pesc::format_info formats[] = {pesc::nf4<64, pesc::double_quant<>>::info(),
                                         pesc::unquantized<float>::info()};
    for (const auto level : support::host_isas())
      for (const int threads : {1, 3})
        for (const pesc::format_info& format : formats) {
          CAPTURE(std::string(pesc::cpu::name_of(level)));
          CAPTURE(threads);
          CAPTURE(std::string(format.name));
          CHECK(allocations_of_steps(level, threads, {}, format) == 0);
          CHECK(allocations_of_steps(level, threads, all_options, format) == 0);
        }
  }

  TEST_CASE(
      "every number of tokens up to the prepared one runs in the same buffers and gives the bits of its own "
      "buffers") {
    const pesc::format_info format = pesc::nf4<64>::info();
    for (const auto level : support::host_isas())
      for (const pesc::moe_options& options : {pesc::moe_options{}, all_options}) {
        CAPTURE(std::string(pesc::cpu::name_of(level)));
        backend ctx(2, pesc::cpu::runtime_isa{level});
        pesc::moe_layer<float_layer, backend> layer(ctx, shape, options, 1, &format);
        support::fill_trainables(layer.parameters(), 1);
        constexpr index_t most = 35;
        auto shared = layer.prepare(ctx, most);
        for (index_t tokens = most; tokens >= 1; --tokens) {
          CAPTURE(tokens);
          auto own = layer.prepare(ctx, tokens);
          support::layer_run first(layer, tokens);
          support::layer_run second(layer, tokens);
          for (auto [io, buffers] : {std::pair{&first, &shared}, std::pair{&second, &own}}) {
            io->forward(ctx, layer, *buffers, {.training = true});
            io->backward(ctx, layer, *buffers);
          }
          CHECK(support::same_bits(first.results(), second.results()));
        }
      }
  }

  TEST_CASE("every number of tokens up to 130 fits into buffers for the most") {
    const pesc::format_info format = pesc::nf4<64, pesc::double_quant<>>::info();
    constexpr index_t most = 130;
    for (const auto level : support::host_isas()) {
      CAPTURE(std::string(pesc::cpu::name_of(level)));
      backend ctx(2, pesc::cpu::runtime_isa{level});
      pesc::moe_layer<float_layer, backend> layer(ctx, shape, all_options, 1, &format);
      auto buffers = layer.prepare(ctx, most);
      support::layer_run io(layer, most);
      for (index_t tokens = 1; tokens <= most; ++tokens) {
        io.tokens = tokens;
        REQUIRE_NOTHROW(io.forward(ctx, layer, buffers, {.training = true}));
        REQUIRE_NOTHROW(io.backward(ctx, layer, buffers));
      }
    }
  }
}
