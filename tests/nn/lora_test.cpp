// SPDX-License-Identifier: Apache-2.0
#include "pesc/nn/lora.hpp"

#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "support/message_of.hpp"
#include "support/near.hpp"
#include "support/random.hpp"

namespace {

using pesc::index_t;

static_assert(pesc::Lora<pesc::lora<64>> && pesc::no_lora::rank == 0);
static_assert(!pesc::Lora<int>);

struct pair {
  pesc::buffer<float> memory{512};
  pesc::lora_parameters<> p;

  pair(index_t rank, index_t in, index_t out) {
    pesc::parameter_arena<> arena(memory.data(), memory.size());
    p = pesc::lora_parameters<>::carve(arena, rank, in, out);
  }
};

}  // namespace

TEST_SUITE("nn/lora") {
  TEST_CASE("the factors are [rank, in] and [out, rank]; with rank 0 there are none") {
    const pair some(3, 7, 5);
    CHECK(some.p.rank() == 3);
    CHECK(some.p.a.cols == 7);
    CHECK(some.p.b.rows == 5);
    std::vector<std::string> names;
    some.p.for_each("up_proj.",
                    [&](const std::string& name, pesc::batch_view<float>) { names.push_back(name); });
    CHECK(names == std::vector<std::string>{"up_proj.lora_A", "up_proj.lora_B"});

    const pair none(0, 7, 5);
    CHECK(none.p.rank() == 0);
    none.p.for_each("", [](const std::string&, pesc::batch_view<float>) { FAIL("no tensor is expected"); });
    pesc::initialize(none.p, {});
  }

  TEST_CASE("at the start the update is zero, but its first factor is not") {
    pair l(3, 7, 5);
    l.p.b(2, 1) = 4.0f;
    pesc::initialize(l.p, {.seed = 1});
    for (index_t i = 0; i < 15; ++i) CHECK(l.p.b.data[i] == 0.0f);
    for (index_t i = 0; i < 21; ++i) CHECK(l.p.a.data[i] != 0.0f);
    std::vector<float> weight(35, 1.5f);
    pesc::merge(l.p, 2.0f, {weight.data(), 5, 7});
    CHECK(weight == std::vector<float>(35, 1.5f));
  }

  TEST_CASE("merging adds scale B A") {
    pair l(3, 7, 5);
    const auto values = support::normal_floats(512, 1);
    std::copy(values.begin(), values.end(), l.memory.data());
    std::vector<float> weight = support::normal_floats(35, 2);
    std::vector<double> expected(weight.begin(), weight.end());
    for (index_t i = 0; i < 5; ++i)
      for (index_t j = 0; j < 7; ++j)
        for (index_t r = 0; r < 3; ++r)
          expected[static_cast<std::size_t>(i * 7 + j)] +=
              0.5 * static_cast<double>(l.p.b(i, r)) * static_cast<double>(l.p.a(r, j));
    pesc::merge(l.p, 0.5f, {weight.data(), 5, 7});
    CHECK(support::near(weight, expected, 1e-6));
    CHECK(support::message_of<pesc::shape_error>([&] {
            pesc::merge(l.p, 1.0f, {weight.data(), 7, 5});
          }) == "merge a low-rank update of 5 x 7 into a weight of 7 x 5");
  }
}
