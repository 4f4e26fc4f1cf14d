// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>

#include "pesc/core/types.hpp"
#include "pesc/io/element_type.hpp"

namespace pesc::detail {

/// \brief Types of the values of keys, numbered as the file does.
enum class gguf_value : std::uint32_t {
  u8,
  i8,
  u16,
  i16,
  u32,
  i32,
  f32,
  boolean,
  string,
  array,
  u64,
  i64,
  f64
};

[[nodiscard]] constexpr std::string_view name_of(gguf_value type) {
  constexpr std::string_view names[] = {"u8",           "i8",    "u16",   "i16", "u32", "i32", "f32",
                                        "truth values", "texts", "lists", "u64", "i64", "f64"};
  return names[static_cast<std::size_t>(type)];
}

/// \brief Bytes of a number of that type; 0 for texts and lists.
[[nodiscard]] constexpr index_t bytes_of(gguf_value type) {
  constexpr index_t bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  return bytes[static_cast<std::size_t>(type)];
}

/// \brief A type of tensors: how many bytes a block of weights takes, and what reads it here.
struct gguf_tensor_type {
  std::uint32_t number;
  std::string_view name;
  index_t weights, bytes;
  element_type type = element_type::unknown;
};

/// \brief The known types; those without an `element_type` can be listed but not read.
inline constexpr gguf_tensor_type gguf_tensor_types[] = {
    {0, "F32", 1, 4, element_type::f32},
    {1, "F16", 1, 2, element_type::f16},
    {2, "Q4_0", 32, 18, element_type::q4_0},
    {3, "Q4_1", 32, 20, element_type::q4_1},
    {6, "Q5_0", 32, 22},
    {7, "Q5_1", 32, 24},
    {8, "Q8_0", 32, 34, element_type::q8_0},
    {10, "Q2_K", 256, 84},
    {11, "Q3_K", 256, 110},
    {12, "Q4_K", 256, 144},
    {13, "Q5_K", 256, 176},
    {14, "Q6_K", 256, 210},
    {15, "Q8_K", 256, 292},
    {16, "IQ2_XXS", 256, 66},
    {17, "IQ2_XS", 256, 74},
    {18, "IQ3_XXS", 256, 98},
    {19, "IQ1_S", 256, 50},
    {20, "IQ4_NL", 32, 18},
    {21, "IQ3_S", 256, 110},
    {22, "IQ2_S", 256, 82},
    {23, "IQ4_XS", 256, 136},
    {24, "I8", 1, 1, element_type::i8},
    {25, "I16", 1, 2, element_type::i16},
    {26, "I32", 1, 4, element_type::i32},
    {27, "I64", 1, 8, element_type::i64},
    {28, "F64", 1, 8, element_type::f64},
    {29, "IQ1_M", 256, 56},
    {30, "BF16", 1, 2, element_type::bf16},
    {34, "TQ1_0", 256, 54},
    {35, "TQ2_0", 256, 66},
    {39, "MXFP4", 32, 17},
};

[[nodiscard]] constexpr const gguf_tensor_type* find_tensor_type(std::uint32_t number) {
  for (const gguf_tensor_type& type : gguf_tensor_types)
    if (type.number == number) return &type;
  return nullptr;
}

}  // namespace pesc::detail
