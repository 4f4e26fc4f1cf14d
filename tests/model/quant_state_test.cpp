// SPDX-License-Identifier: Apache-2.0
#include "pesc/model/quant_state.hpp"

#include <string>

#include <doctest/doctest.h>

#include "support/message_of.hpp"

namespace {

const std::string nested_text =
    "{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"bfloat16\", \"shape\": [4096, 4096], "
    "\"nested_blocksize\": 256, "
    "\"nested_dtype\": \"float32\", \"nested_offset\": 0.056444644927978516}";

std::string refusal(const std::string& text) {
  return support::message_of([&] { static_cast<void>(pesc::parse_quant_state(text, "m: tensor")); });
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  return text.replace(text.find(from), from.size(), to);
}

}  // namespace

TEST_SUITE("model/quant_state") {
  TEST_CASE("the published example reads and writes back to the byte") {
    const auto state = pesc::parse_quant_state(nested_text, "m");
    CHECK(nested_text.size() == 173);
    CHECK(state.quant_type == "nf4");
    CHECK(state.block == 64);
    CHECK(state.rows == 4096);
    CHECK(state.cols == 4096);
    CHECK(state.nested);
    CHECK(state.nested_offset == 0.056444644927978516f);
    CHECK(to_string(state) == nested_text);
  }

  TEST_CASE("plain scales have no nested keys") {
    const std::string text =
        "{\"quant_type\": \"fp4\", \"blocksize\": 128, \"dtype\": \"float16\", \"shape\": [3, 5]}";
    const auto state = pesc::parse_quant_state(text, "m");
    CHECK_FALSE(state.nested);
    CHECK(to_string(state) == text);
    CHECK(state.format().scales == pesc::scale_kind::plain);
    CHECK(state.format().levels == pesc::fp4<>::levels());
    CHECK(state.format().block == 128);
  }

  TEST_CASE("keys may come in any order, with any spaces and unknown ones between") {
    const auto state = pesc::parse_quant_state(
        "{\"shape\":[3,5],\n\"other\":{\"a\":[1]},\"dtype\":\"float32\",\"blocksize\":64,\"quant_type\":"
        "\"nf4\"}",
        "m");
    CHECK(state == pesc::quant_state{"nf4", 64, "float32", 3, 5, false, 0});
  }

  TEST_CASE("offsets of every size keep their bits through the text") {
    for (const float offset : {0.0f, 1e-30f, 3.4e38f, 0.1f, 1.0f, 1e22f, -0.25f, 1e-45f}) {
      const pesc::quant_state state{"nf4", 64, "float32", 3, 5, true, offset};
      CHECK(pesc::parse_quant_state(to_string(state), "m").nested_offset == offset);
    }
  }

  TEST_CASE("what the format does not allow is refused with the key and the value") {
    using support::contains;
    CHECK(contains(refusal(replaced(nested_text, "nf4", "int4")), "\"quant_type\" is \"int4\""));
    CHECK(contains(refusal(replaced(nested_text, ": 64", ": 48")),
                   "\"blocksize\" is 48, expected a power of two from 32 to 4096"));
    CHECK(contains(refusal(replaced(nested_text, ": 64", ": 8192")), "8192"));
    CHECK(contains(refusal(replaced(nested_text, ": 64", ": -64")), "-64"));
    CHECK(contains(refusal(replaced(nested_text, "bfloat16", "int8")), "\"dtype\" is \"int8\""));
    CHECK(contains(refusal(replaced(nested_text, "[4096, 4096]", "[4096]")), "has 1 dimensions, expected 2"));
    CHECK(contains(refusal(replaced(nested_text, "[4096, 4096]", "[4096, 0]")), "holds 0"));
    CHECK(
        contains(refusal(replaced(nested_text, "[4096, 4096]", "[2147483647, 2147483647]")), "at most 2^44"));
    CHECK(contains(refusal(replaced(nested_text, "[4096, 4096]", "[4096, \"1\"]")),
                   "expected a list of integers"));
    CHECK(
        contains(refusal(replaced(nested_text, "256", "128")), "\"nested_blocksize\" is 128, expected 256"));
    CHECK(contains(refusal(replaced(nested_text, "float32", "float16")), "\"nested_dtype\" is \"float16\""));
    CHECK(contains(refusal(replaced(nested_text, "0.056444644927978516", "1e300")),
                   "\"nested_offset\" is 1e+300"));
    CHECK(contains(refusal(replaced(nested_text, "\"shape\"", "\"form\"")), "\"shape\" is missing"));
    CHECK(contains(refusal("[1]"), "expected an object"));
    CHECK(contains(refusal(nested_text.substr(0, 100)), "m: tensor: byte"));
  }
}
