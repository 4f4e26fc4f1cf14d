// SPDX-License-Identifier: Apache-2.0
#include "pesc/model/tensor_names.hpp"

#include <map>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "pesc/model/attention_block.hpp"
#include "pesc/moe/parameters.hpp"
#include "support/tiny_model.hpp"

namespace {

using trainables = pesc::moe_trainables<pesc::moe_dynamic<>>;

struct layer {
  pesc::attention_trainables<> attention;
  trainables ffn;
};

std::map<std::string, std::pair<pesc::trainable_kind, std::string>> names_of(const pesc::moe_shape& shape) {
  const pesc::llama_shape s = pesc::shape_of(support::tiny_llama());
  pesc::buffer<float> memory(20'000);
  pesc::parameter_arena<> arena(memory.data(), memory.size());
  std::vector<layer> layers;
  for (int l = 0; l < 2; ++l)
    layers.push_back(
        {pesc::attention_trainables<>::carve(arena, s, shape.lora_rank), trainables::carve(arena, shape)});
  std::map<std::string, std::pair<pesc::trainable_kind, std::string>> out;
  pesc::for_each_trainable(layers, [&](const std::string& name, pesc::trainable_kind kind, auto m) {
    CHECK_MESSAGE(
        out.emplace(name, std::pair{kind, std::to_string(m.rows) + "x" + std::to_string(m.cols)}).second,
        name);
  });
  return out;
}

}  // namespace

TEST_SUITE("model/tensor_names") {
  TEST_CASE("trainable tensors carry the names of published checkpoints") {
    const auto names = names_of({24, 36, 3, 2, 5, 4});
    // Per layer: a router, two tensors per expert, a pair for each of seven projections.
    CHECK(names.size() == 2 * (1 + 2 * 3 + 2 * 7));
    using pesc::trainable_kind;
    const auto is = [&](const std::string& name, trainable_kind kind, const std::string& shape) {
      CAPTURE(name);
      REQUIRE(names.contains(name));
      CHECK(names.at(name) == std::pair{kind, shape});
    };
    is("model.layers.1.mlp.moe_adapter.router.weight", trainable_kind::expert_path, "3x24");
    is("model.layers.0.mlp.moe_adapter.experts.expert_2.adapter_down.weight", trainable_kind::expert_path,
       "5x24");
    is("model.layers.0.mlp.moe_adapter.experts.expert_0.adapter_up.weight", trainable_kind::expert_path,
       "24x5");
    is("model.layers.1.self_attn.k_proj.lora_A.weight", trainable_kind::low_rank, "4x24");
    is("model.layers.1.self_attn.k_proj.lora_B.weight", trainable_kind::low_rank, "12x4");
    is("model.layers.0.mlp.down_proj.lora_A.weight", trainable_kind::low_rank, "4x36");
  }

  TEST_CASE("a single expert still has a number, and no LoRA means no pairs") {
    const auto names = names_of({24, 36, 1, 1, 5, 0});
    CHECK(names.size() == 2 * 3);
    CHECK(names.contains("model.layers.0.mlp.moe_adapter.experts.expert_0.adapter_up.weight"));
  }

  TEST_CASE("the names that a configuration asks for are those that a model's trainable tensors have") {
    const auto names = names_of({24, 36, 3, 2, 5, 0});
    std::size_t count = 0;
    pesc::for_each_expert_path(
        support::tiny_llama(), support::tiny_experts(),
        [&](const std::string& name, pesc::index_t rows, pesc::index_t cols) {
          ++count;
          REQUIRE(names.contains(name));
          CHECK(names.at(name).second == std::to_string(rows) + "x" + std::to_string(cols));
        });
    CHECK(count == names.size());
  }

  TEST_CASE("frozen tensors follow the configuration: head, biases, head size") {
    pesc::llama_config c = support::tiny_llama();
    c.attention_bias = true;
    c.head_dim = 8;
    std::map<std::string, std::pair<pesc::index_t, pesc::index_t>> found;
    const auto collect = [&](const std::string& name, pesc::index_t rows, pesc::index_t cols) {
      found[name] = {rows, cols};
    };
    pesc::for_each_frozen(c, collect);
    CHECK(found.size() == 3 + 2 * (9 + 4));
    CHECK(found.at("model.layers.1.self_attn.o_proj.weight") ==
          std::pair<pesc::index_t, pesc::index_t>{24, 32});
    CHECK(found.at("model.layers.1.self_attn.v_proj.bias") == std::pair<pesc::index_t, pesc::index_t>{16, 0});
    CHECK(found.contains("lm_head.weight"));
    found.clear();
    c.tie_embeddings = true;
    c.mlp_bias = true;
    pesc::for_each_frozen(c, collect);
    CHECK_FALSE(found.contains("lm_head.weight"));
    CHECK(found.at("model.layers.0.mlp.up_proj.bias") == std::pair<pesc::index_t, pesc::index_t>{36, 0});
  }

  TEST_CASE("the other family's names of experts") {
    CHECK(pesc::without_expert_word("a.experts.expert_12.adapter_up.weight") ==
          "a.experts.12.adapter_up.weight");
    CHECK(pesc::without_expert_word("a.router.weight") == "a.router.weight");
  }
}
