// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>

#include "pesc/core/types.hpp"

namespace pesc {

/// \brief Element types that tensor files name. The order is that of the safetensors writer: by alignment.
enum class element_type : std::uint8_t {
  boolean,
  f4,
  f6_e2m3,
  f6_e3m2,
  u8,
  i8,
  f8_e5m2,
  f8_e4m3,
  f8_e8m0,
  f8_e4m3fnuz,
  f8_e5m2fnuz,
  i16,
  u16,
  f16,
  bf16,
  i32,
  u32,
  f32,
  c64,
  f64,
  i64,
  u64,
  unknown,  ///< a name that this version does not know; such a tensor cannot be read
  // Blocks of weights with a common scale, in GGUF files only; see `block_of`.
  q4_0,
  q4_1,
  q8_0,
};

namespace detail {

struct element_type_row {
  std::string_view name;
  int bits;
};

inline constexpr element_type_row element_type_table[] = {
    {"BOOL", 8},    {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6},     {"U8", 8},          {"I8", 8},
    {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"I16", 16},
    {"U16", 16},    {"F16", 16},    {"BF16", 16},   {"I32", 32},        {"U32", 32},        {"F32", 32},
    {"C64", 64},    {"F64", 64},    {"I64", 64},    {"U64", 64},        {"unknown", 0},     {"Q4_0", 0},
    {"Q4_1", 0},    {"Q8_0", 0}};
static_assert(std::size(element_type_table) == static_cast<std::size_t>(element_type::q8_0) + 1);

}  // namespace detail

/// \brief The name in a safetensors header: "BF16".
[[nodiscard]] constexpr std::string_view name_of(element_type type) {
  return detail::element_type_table[static_cast<std::size_t>(type)].name;
}

/// \brief Bits of one element, 0 for an unknown type and where elements come in blocks.
[[nodiscard]] constexpr int bits_of(element_type type) {
  return detail::element_type_table[static_cast<std::size_t>(type)].bits;
}

/// \brief The type of that name in a safetensors file, or `unknown`.
[[nodiscard]] constexpr element_type element_type_named(std::string_view name) {
  for (int i = 0; i < static_cast<int>(element_type::unknown); ++i)
    if (detail::element_type_table[i].name == name) return static_cast<element_type>(i);
  return element_type::unknown;
}

/// \brief The file type that holds values of `T`.
template <class T>
inline constexpr element_type element_type_of = element_type::unknown;
template <>
inline constexpr element_type element_type_of<float> = element_type::f32;
template <>
inline constexpr element_type element_type_of<double> = element_type::f64;
template <>
inline constexpr element_type element_type_of<bf16> = element_type::bf16;
template <>
inline constexpr element_type element_type_of<f16> = element_type::f16;
template <>
inline constexpr element_type element_type_of<std::uint8_t> = element_type::u8;
template <>
inline constexpr element_type element_type_of<std::int8_t> = element_type::i8;
template <>
inline constexpr element_type element_type_of<std::int32_t> = element_type::i32;
template <>
inline constexpr element_type element_type_of<std::uint32_t> = element_type::u32;
template <>
inline constexpr element_type element_type_of<std::int64_t> = element_type::i64;
template <>
inline constexpr element_type element_type_of<std::uint64_t> = element_type::u64;

/// \brief `a * b`, or nothing when the product does not fit; for sizes that come from a file.
[[nodiscard]] constexpr std::optional<index_t> checked_product(index_t a, index_t b) {
  index_t product = 0;
  if (a < 0 || b < 0 || __builtin_mul_overflow(a, b, &product)) return {};
  return product;
}

/// \brief Number of elements of a shape, 1 for rank 0; nothing when it does not fit 63 bits.
///
/// A zero dimension makes an empty tensor, but the other dimensions must still multiply without overflow.
[[nodiscard]] constexpr std::optional<index_t> checked_count(std::span<const index_t> shape) {
  index_t product = 1;
  bool empty = false;
  for (const index_t dimension : shape) {
    if (dimension == 0) {
      empty = true;
      continue;
    }
    const auto next = checked_product(product, dimension);
    if (!next) return {};
    product = *next;
  }
  return empty ? 0 : product;
}

/// \brief Bytes of a tensor; nothing when they do not fit 63 bits or are not whole.
[[nodiscard]] constexpr std::optional<index_t> checked_bytes(element_type type,
                                                             std::span<const index_t> shape) {
  const auto count = checked_count(shape);
  if (!count) return {};
  const auto bits = checked_product(*count, bits_of(type));
  if (!bits || *bits % 8 != 0) return {};
  return *bits / 8;
}

/// \brief Reads one value from bytes of any alignment.
template <class T>
[[nodiscard]] T load_unaligned(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

}  // namespace pesc
