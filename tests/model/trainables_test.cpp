// SPDX-License-Identifier: Apache-2.0
#include "pesc/model/trainables.hpp"

#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "pesc/io/safetensors.hpp"
#include "pesc/model/load_weights.hpp"
#include "pesc/moe/parameters.hpp"
#include "support/message_of.hpp"
#include "support/tiny_model.hpp"

namespace {

/// The trainable tensors of two layers, over an arena of their own.
struct layers {
  struct layer {
    pesc::attention_trainables<> attention;
    pesc::moe_trainables<pesc::moe_dynamic<>> ffn;
  };
  pesc::buffer<float> arena;
  std::vector<layer> views;

  explicit layers(const pesc::moe_shape& shape, std::uint64_t seed = 0) {
    const auto carve = [&](pesc::parameter_arena<>& from) {
      views.clear();
      for (int l = 0; l < 2; ++l)
        views.push_back({pesc::attention_trainables<>::carve(from, pesc::shape_of(support::tiny_llama()),
                                                             shape.lora_rank),
                         pesc::moe_trainables<pesc::moe_dynamic<>>::carve(from, shape)});
    };
    pesc::parameter_arena<> counting;
    carve(counting);
    arena = pesc::buffer<float>(counting.size());
    pesc::parameter_arena<> carver(arena.data(), arena.size());
    carve(carver);
    if (seed == 0) return;
    pesc::for_each_trainable(views, [&](const std::string&, pesc::trainable_kind, auto m) {
      const auto random = support::normal_floats(m.size(), ++seed);
      std::copy(random.begin(), random.end(), m.data);
    });
  }
  std::vector<float> values() const { return {arena.data(), arena.data() + arena.size()}; }
};

const pesc::moe_shape shape{24, 36, 3, 2, 5, 4};

pesc::safetensors_file file_of(const layers& from, pesc::trainable_kind kind) {
  pesc::safetensors_writer out;
  pesc::store_trainables(from.views, kind, out);
  return pesc::safetensors_file::from_bytes("m", out.to_bytes());
}

/// Both kinds in one set, low-rank ones without the prefix of their file.
pesc::tensor_set set_of(const layers& from, const std::string& without = "") {
  pesc::tensor_set out;
  for (const auto kind : {pesc::trainable_kind::expert_path, pesc::trainable_kind::low_rank}) {
    const auto file = file_of(from, kind);
    for (const auto& tensor : file.tensors())
      if (without.empty() || tensor.name.find(without) == tensor.name.npos)
        out.add(tensor, pesc::name_without_peft(tensor.name), "m");
  }
  return out;
}

}  // namespace

TEST_SUITE("model/trainables") {
  TEST_CASE("what is stored loads to the same bits") {
    const layers from(shape, 5), to(shape);
    const auto filled = pesc::load_trainables(to.views, set_of(from), "m");
    CHECK(filled.expert_path == 2 * (1 + 2 * 3));
    CHECK(filled.low_rank == 2 * 2 * 7);
    CHECK(from.values() == to.values());
  }

  TEST_CASE("routers and adapters go to the model's file, low-rank pairs to the adapter's") {
    const layers from(shape, 5);
    for (const auto& name : file_of(from, pesc::trainable_kind::expert_path).names())
      CHECK_MESSAGE(support::contains(name, ".mlp.moe_adapter."), name);
    for (const auto& name : file_of(from, pesc::trainable_kind::low_rank).names())
      CHECK_MESSAGE(name.starts_with("base_model.model.model.layers."), name);
  }

  TEST_CASE("projections without an update, and a dense source, leave the starting values") {
    const layers from(shape, 5);
    layers to(shape, 9);
    const auto before = to.values();
    const auto none = pesc::load_trainables(to.views, pesc::tensor_set{}, "m");
    CHECK(none.expert_path + none.low_rank == 0);
    CHECK(to.values() == before);
    const auto some = pesc::load_trainables(to.views, set_of(from, "o_proj"), "m");
    CHECK(some.low_rank == 2 * 2 * 6);
    CHECK(to.views[1].attention.o.a(1, 2) != from.views[1].attention.o.a(1, 2));
    CHECK(to.views[1].attention.q.a(1, 2) == from.views[1].attention.q.a(1, 2));
  }

  TEST_CASE("half a sparse part is an error that names what is missing") {
    const layers from(shape, 5), to(shape);
    const auto text = support::message_of(
        [&] { pesc::load_trainables(to.views, set_of(from, "expert_1.adapter_up"), "m"); });
    CHECK(support::contains(text,
                            "m: missing 2 of 14 tensors of routers and adapters: "
                            "\"model.layers.0.mlp.moe_adapter.experts.expert_1.adapter_up.weight\""));
  }

  TEST_CASE("another rank is named with both shapes") {
    pesc::moe_shape wider = shape;
    wider.lora_rank = 8;
    const layers from(shape, 5), to(wider);
    const auto text = support::message_of([&] { pesc::load_trainables(to.views, set_of(from), "m"); });
    CHECK(support::contains(text, "is [4, 24], expected [8, 24]"));
  }
}
