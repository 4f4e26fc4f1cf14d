// SPDX-License-Identifier: Apache-2.0
#include "pesc/model/layer_file.hpp"

#include <algorithm>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "pesc/moe/parameters.hpp"
#include "support/message_of.hpp"
#include "support/random.hpp"
#include "support/temporary_folder.hpp"

namespace {

struct layer {
  using views_type = pesc::moe_trainables<pesc::moe_dynamic<>>;
  pesc::buffer<float> arena;
  views_type views;

  explicit layer(const pesc::moe_shape& shape, std::uint64_t seed = 0) : arena(views_type::size(shape)) {
    pesc::parameter_arena<> carver(arena.data(), arena.size());
    views = views_type::carve(carver, shape);
    if (seed != 0)
      views.for_each([&](const std::string&, auto b) {
        const auto values = support::normal_floats(b.size(), ++seed);
        std::copy(values.begin(), values.end(), b.data);
      });
  }
  std::vector<float> values() const { return {arena.data(), arena.data() + arena.size()}; }
};

const pesc::moe_shape shape{24, 36, 3, 2, 5, 4};

}  // namespace

TEST_SUITE("model/layer_file") {
  TEST_CASE("one layer's trainable tensors come back to the bit, and save to the same bytes") {
    const support::temporary_folder t;
    const layer from(shape, 1), to(shape);
    pesc::save_parameters(t.path("a"), from.views);
    pesc::load_parameters(t.path("a"), to.views);
    CHECK(from.values() == to.values());
    pesc::save_parameters(t.path("b"), to.views);
    CHECK(pesc::read_file(t.path("a")) == pesc::read_file(t.path("b")));
    const auto file = pesc::safetensors_file::open(t.path("a"));
    CHECK(file.get("router").shape == std::vector<pesc::index_t>{3, 24});
    CHECK(file.get("adapter_up").shape == std::vector<pesc::index_t>{3, 24, 5});
    CHECK(file.get("down_proj.lora_A").shape == std::vector<pesc::index_t>{4, 36});
  }

  TEST_CASE("files of another layer are refused before anything is changed") {
    const support::temporary_folder t;
    const layer from(shape, 1);
    pesc::save_parameters(t.path("a"), from.views);
    const auto refusal = [&](pesc::moe_shape other) {
      const layer to(other, 7);
      const auto before = to.values();
      const auto text = support::message_of([&] { pesc::load_parameters(t.path("a"), to.views); });
      CHECK(to.values() == before);
      return text;
    };
    CHECK(support::contains(refusal({24, 36, 4, 2, 5, 4}), "tensor \"router\" is [3, 24], expected [4, 24]"));
    CHECK(support::contains(refusal({24, 36, 3, 2, 5, 0}),
                            "6 tensors are not of this layer: \"down_proj.lora_A\""));
    const layer bare({24, 36, 3, 2, 5, 0}, 2);
    pesc::save_parameters(t.path("a"), bare.views);
    CHECK(support::contains(refusal(shape), "missing 6 of 9 tensors: \"gate_proj.lora_A\""));
  }

  TEST_CASE("a save that cannot be finished leaves the older file") {
    const layer from(shape, 1);
    CHECK_THROWS_AS(pesc::save_parameters("/dev/full/x", from.views), pesc::io_error);
    CHECK_THROWS_AS(pesc::save_parameters("/no/such/folder/x", from.views), pesc::io_error);
  }
}
