// SPDX-License-Identifier: Apache-2.0
#include "pesc/io/tensor_info.hpp"

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "support/message_of.hpp"

namespace {

/// A tensor of these values that starts at an odd address.
template <class T>
pesc::tensor_info odd_tensor(std::vector<std::byte>& storage, const std::vector<T>& values) {
  storage.assign(values.size() * sizeof(T) + 1, std::byte{0});
  std::memcpy(storage.data() + 1, values.data(), values.size() * sizeof(T));
  const auto type = pesc::element_type_of<T>;
  const auto size = static_cast<pesc::index_t>(values.size());
  return {"w",
          type,
          std::string{name_of(type)},
          {size},
          0,
          size * static_cast<pesc::index_t>(sizeof(T)),
          std::span<const std::byte>{storage}.subspan(1)};
}

}  // namespace

TEST_SUITE("io/tensor_info") {
  TEST_CASE("float types convert exactly from any address") {
    std::vector<std::byte> storage;
    const std::vector<float> expected{1.0f, -2.5f, 0.0f};
    CHECK(pesc::to_floats(odd_tensor<float>(storage, expected), "f") == expected);
    CHECK(pesc::to_floats(odd_tensor<double>(storage, {1.0, -2.5, 0.0}), "f") == expected);
    CHECK(pesc::to_floats(odd_tensor<pesc::bf16>(storage, {pesc::to_bf16(1), pesc::to_bf16(-2.5f), {}}),
                          "f") == expected);
    CHECK(pesc::to_floats(odd_tensor<pesc::f16>(storage, {pesc::to_f16(1), pesc::to_f16(-2.5f), {}}), "f") ==
          expected);
  }

  TEST_CASE("values of one type come back, other types are refused by name") {
    std::vector<std::byte> storage;
    const std::vector<std::int64_t> numbers{1, -1, std::int64_t{1} << 40};
    const auto tensor = odd_tensor<std::int64_t>(storage, numbers);
    CHECK(pesc::values_of<std::int64_t>(tensor, "f") == numbers);
    CHECK(tensor.count() == 3);
    CHECK(support::message_of([&] { static_cast<void>(pesc::values_of<std::int32_t>(tensor, "f")); }) ==
          "f: tensor \"w\" is I64, expected I32");
    CHECK(support::message_of([&] { static_cast<void>(pesc::to_floats(tensor, "f")); }) ==
          "f: tensor \"w\" is I64, expected F32, F16, BF16 or F64");
  }

  TEST_CASE("shapes print as lists") {
    CHECK(pesc::shape_text(std::vector<pesc::index_t>{64, 172}) == "[64, 172]");
    CHECK(pesc::shape_text({}) == "[]");
  }
}
