// SPDX-License-Identifier: Apache-2.0
#include "pesc/moe/config.hpp"

#include <doctest/doctest.h>

#include "support/message_of.hpp"

namespace {

using pesc::moe_shape;

struct fixed : pesc::moe_defaults {
  static constexpr int experts = 8;
  using expert = pesc::adapter_expert<16>;
};

struct too_many_choices : pesc::moe_defaults {
  static constexpr int experts = 1;
};
struct no_experts : pesc::moe_defaults {
  static constexpr int experts = 0;
};
struct half_activation : pesc::moe_defaults {
  using activation = pesc::f16;
};
struct integer_compute : pesc::moe_defaults {
  using compute = int;
};
struct unknown_weight : pesc::moe_defaults {
  using weight = float;
};
struct unknown_lora : pesc::moe_defaults {
  using lora = int;
};

static_assert(pesc::MoeConfig<pesc::moe_defaults>);
static_assert(pesc::MoeConfig<fixed>);
static_assert(pesc::MoeConfig<pesc::moe_dynamic<pesc::bf16>>);
static_assert(!pesc::MoeConfig<too_many_choices>);
static_assert(!pesc::MoeConfig<no_experts>);
static_assert(!pesc::MoeConfig<half_activation>);
static_assert(!pesc::MoeConfig<integer_compute>);
static_assert(!pesc::MoeConfig<unknown_weight>);
static_assert(!pesc::MoeConfig<unknown_lora>);
static_assert(!pesc::MoeConfig<int>);

template <class Config>
std::string refused(const moe_shape& shape) {
  return support::message_of<pesc::shape_error>([&] { static_cast<void>(pesc::complete<Config>(shape)); });
}

constexpr moe_shape usual{
    .hidden = 32, .intermediate = 48, .experts = 8, .top_k = 2, .rank = 16, .lora_rank = 0};

moe_shape with(auto change) {
  moe_shape shape = usual;
  change(shape);
  return shape;
}

}  // namespace

TEST_SUITE("moe/config") {
  TEST_CASE("what the configuration fixes is filled in, what it leaves open is kept") {
    const moe_shape filled = pesc::complete<fixed>({.hidden = 32, .intermediate = 48});
    CHECK(filled.experts == 8);
    CHECK(filled.top_k == 2);
    CHECK(filled.rank == 16);
    CHECK(filled.lora_rank == 0);
    const moe_shape kept = pesc::complete<pesc::moe_dynamic<>>(
        {.hidden = 32, .intermediate = 48, .experts = 5, .top_k = 3, .rank = 7, .lora_rank = 4});
    CHECK(kept.experts == 5);
    CHECK(kept.top_k == 3);
    CHECK(kept.rank == 7);
    CHECK(kept.lora_rank == 4);
    CHECK(refused<fixed>(usual) == "no error");  // saying the same twice is no contradiction
  }

  TEST_CASE("contradictions and missing sizes are named with both numbers") {
    CHECK(refused<fixed>({.hidden = 32, .intermediate = 48, .experts = 4}) ==
          "experts is 4 in moe_shape, but the configuration fixes 8");
    CHECK(refused<fixed>({.hidden = 32, .intermediate = 48, .top_k = 3}) ==
          "top_k is 3 in moe_shape, but the configuration fixes 2");
    CHECK(refused<fixed>({.hidden = 32, .intermediate = 48, .rank = 8}) ==
          "rank is 8 in moe_shape, but the configuration fixes 16");
    CHECK(refused<fixed>({.hidden = 32, .intermediate = 48, .lora_rank = 4}) ==
          "lora_rank is 4 in moe_shape, but the configuration fixes 0");
    CHECK(refused<pesc::moe_dynamic<>>({.hidden = 32, .intermediate = 48}) ==
          "experts must be given in moe_shape, since the configuration leaves it dynamic");
    CHECK(refused<pesc::moe_dynamic<>>({.hidden = 32, .intermediate = 48, .experts = 4}) ==
          "top_k must be given in moe_shape, since the configuration leaves it dynamic");
  }

  TEST_CASE("values out of range are refused with the range") {
    using open = pesc::moe_dynamic<>;
    CHECK(refused<open>(with([](moe_shape& s) { s.hidden = 0; })) ==
          "layer of hidden size 0 and intermediate size 48: both must be positive");
    CHECK(refused<open>(with([](moe_shape& s) { s.intermediate = -1; })) ==
          "layer of hidden size 32 and intermediate size -1: both must be positive");
    CHECK(refused<open>(with([](moe_shape& s) { s.top_k = 9; })) ==
          "top-k of 9 with 8 experts: must be 1 to the number of experts");
    CHECK(refused<open>(with([](moe_shape& s) { s.experts = 64, s.top_k = 17; })) ==
          "top-k of 17: at most 16 are supported");
    CHECK(refused<open>(with([](moe_shape& s) { s.rank = 33; })) ==
          "adapter rank 33 is larger than the hidden size 32");
    CHECK(refused<open>(with([](moe_shape& s) { s.lora_rank = 33; })) ==
          "LoRA rank 33: must be 0 to the hidden size 32");
    CHECK(refused<open>(with([](moe_shape& s) { s.lora_rank = -1; })) ==
          "LoRA rank -1: must be 0 to the hidden size 32");
    CHECK(refused<open>(with([](moe_shape& s) {
            s.experts = 16, s.top_k = 16, s.rank = 32, s.lora_rank = 32;
          })) == "no error");
  }
}
