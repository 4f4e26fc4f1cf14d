// SPDX-License-Identifier: Apache-2.0
#include "pesc/model/missing_tensors.hpp"

#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "support/message_of.hpp"

TEST_SUITE("model/missing_tensors") {
  TEST_CASE("edit distance counts insertions, deletions and replacements") {
    CHECK(pesc::edit_distance("", "") == 0);
    CHECK(pesc::edit_distance("abc", "") == 3);
    CHECK(pesc::edit_distance("kitten", "sitting") == 3);
    CHECK(pesc::edit_distance("router", "router") == 0);
  }

  TEST_CASE("the nearest name is offered only when it is near") {
    CHECK(pesc::nearest_name("model.norm.weight", {"lm_head.weight", "model.norms.weight"}) ==
          "model.norms.weight");
    CHECK(pesc::nearest_name("model.norm.weight", {"x", "yyyyyyyyyyyyyyyyy"}) == "");
    CHECK(pesc::nearest_name(std::string(1000, 'a'), {std::string(1000, 'a')}) == "");
  }

  TEST_CASE("missing tensors are counted, five are named, and a dense model is recognised") {
    std::vector<std::string> missing;
    for (int i = 0; i < 7; ++i)
      missing.push_back("model.layers." + std::to_string(i) + ".mlp.moe_adapter.router.weight");
    const auto text = support::message_of([&] {
      pesc::refuse_missing_tensors("m", missing, 291, {"model.layers.0.mlp.moe_adapter.route.weight"});
    });
    CHECK(support::contains(text,
                            "m: missing 7 of 291 tensors: \"model.layers.0.mlp.moe_adapter.router.weight\""));
    CHECK(support::contains(text, "and 2 more."));
    CHECK(support::contains(
        text, "nearest to the first that is there: \"model.layers.0.mlp.moe_adapter.route.weight\"."));
    CHECK(support::contains(text, "This looks like a dense model"));
  }

  TEST_CASE("tensors without use are counted and named, with what the configuration lacks") {
    const auto text =
        support::message_of([&] { pesc::refuse_extra_tensors("m", {"a.moe_adapter.router.weight"}, {}); });
    CHECK(support::contains(text, "m: 1 tensors are not part of the model"));
    CHECK(support::contains(text, "adapter_dim, num_experts and topk"));
    const auto bias =
        support::message_of([&] { pesc::refuse_extra_tensors("m", {"q_proj.bias"}, {"q_proj.weight"}); });
    CHECK(support::contains(bias, "attention_bias"));
  }
}
