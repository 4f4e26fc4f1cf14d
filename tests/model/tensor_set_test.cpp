// SPDX-License-Identifier: Apache-2.0
#include "pesc/model/tensor_set.hpp"

#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include "pesc/io/safetensors.hpp"
#include "pesc/io/safetensors_writer.hpp"

TEST_SUITE("model/tensor_set") {
  TEST_CASE("tensors outlive their file, keep type and shape, and survive a move") {
    pesc::tensor_set set;
    {
      const std::vector<pesc::bf16> values{pesc::to_bf16(1.5f), pesc::to_bf16(-2.0f)};
      pesc::safetensors_writer out;
      out.add("a", {2, 1}, std::span{values});
      const auto file = pesc::safetensors_file::from_bytes("m", out.to_bytes());
      set.add(file.get("a"), "layer.a", "m");
      set.add(file.get("a"), "other", "m");
    }
    pesc::tensor_set moved = std::move(set);
    CHECK(moved.size() == 2);
    CHECK(moved.names() == std::vector<std::string>{"layer.a", "other"});
    const auto* a = moved.find("layer.a");
    REQUIRE(a != nullptr);
    CHECK(a->name == "layer.a");
    CHECK(a->dtype == pesc::element_type::bf16);
    CHECK(a->shape == std::vector<pesc::index_t>{2, 1});
    CHECK(pesc::to_floats(*a, "m") == std::vector{1.5f, -2.0f});
    CHECK(moved.find("a") == nullptr);
    CHECK(pesc::tensor_set{}.empty());
  }

  TEST_CASE("the first tensor of a name stays") {
    const float values[2] = {1, 2};
    pesc::tensor_info first{
        "x", pesc::element_type::f32, "F32", {1}, 0, 4, std::as_bytes(std::span{values}.first(1))};
    pesc::tensor_info second{
        "x", pesc::element_type::f32, "F32", {1}, 0, 4, std::as_bytes(std::span{values}.last(1))};
    pesc::tensor_set set;
    set.add(first, "x", "m");
    set.add(second, "x", "m");
    CHECK(pesc::to_floats(*set.find("x"), "m") == std::vector{1.0f});
  }
}
