// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pesc/core/error.hpp"
#include "pesc/core/types.hpp"
#include "pesc/io/element_type.hpp"
#include "pesc/io/quoted.hpp"

namespace pesc {

/// \brief A tensor inside a file: row-major values that may start at any address.
struct tensor_info {
  std::string name;
  element_type dtype = element_type::unknown;
  std::string dtype_name;  ///< as the file has it, also when it is unknown
  std::vector<index_t> shape;
  index_t offset = 0;                ///< of the first byte, from the start of the file's data
  index_t size = 0;                  ///< bytes
  std::span<const std::byte> bytes;  ///< the values, `size` bytes

  /// \brief Number of elements, 1 for rank 0.
  [[nodiscard]] index_t count() const {
    index_t product = 1;
    for (const index_t dimension : shape) product *= dimension;
    return product;
  }
};

/// \brief A shape as messages show it: "[64, 172]".
[[nodiscard]] inline std::string shape_text(std::span<const index_t> shape) {
  std::string out = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (i > 0) out += ", ";
    out += std::to_string(shape[i]);
  }
  return out + "]";
}

/// \brief Values of an F32, F16, BF16 or F64 tensor as float.
/// \param file  name for messages
/// \throws format_error for other types
[[nodiscard]] inline std::vector<float> to_floats(const tensor_info& tensor, std::string_view file) {
  const auto convert = [&]<class T>(T) {
    std::vector<float> out(tensor.bytes.size() / sizeof(T));
    for (std::size_t i = 0; i < out.size(); ++i) {
      const T value = load_unaligned<T>(tensor.bytes.data() + i * sizeof(T));
      if constexpr (std::is_same_v<T, double>)
        out[i] = static_cast<float>(value);
      else
        out[i] = to_float(value);
    }
    return out;
  };
  switch (tensor.dtype) {
    case element_type::f32:
      return convert(float{});
    case element_type::f64:
      return convert(double{});
    case element_type::bf16:
      return convert(bf16{});
    case element_type::f16:
      return convert(f16{});
    default:
      detail::raise<format_error>(detail::concat(file, ": tensor ", in_quotes(tensor.name), " is ",
                                                 one_line(tensor.dtype_name, 40),
                                                 ", expected F32, F16, BF16 or F64"));
  }
}

/// \brief Values of a tensor whose type is exactly `T`.
/// \param file  name for messages
/// \throws format_error for other types
template <class T>
[[nodiscard]] std::vector<T> values_of(const tensor_info& tensor, std::string_view file) {
  constexpr element_type wanted = element_type_of<T>;
  static_assert(wanted != element_type::unknown, "pesc: no file type holds values of this C++ type");
  if (tensor.dtype != wanted)
    detail::raise<format_error>(detail::concat(file, ": tensor ", in_quotes(tensor.name), " is ",
                                               one_line(tensor.dtype_name, 40), ", expected ",
                                               name_of(wanted)));
  std::vector<T> out(tensor.bytes.size() / sizeof(T));
  if (!out.empty()) std::memcpy(out.data(), tensor.bytes.data(), out.size() * sizeof(T));
  return out;
}

}  // namespace pesc
