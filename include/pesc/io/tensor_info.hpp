// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pesc/core/buffer.hpp"
#include "pesc/core/error.hpp"
#include "pesc/core/types.hpp"
#include "pesc/core/views.hpp"
#include "pesc/io/block_types.hpp"
#include "pesc/io/element_type.hpp"
#include "pesc/io/file.hpp"
#include "pesc/io/quoted.hpp"

namespace pesc {

/// \brief A tensor inside a file: row-major values that may start at any address, in memory or still in the file.
struct tensor_info {
  std::string name;
  element_type dtype = element_type::unknown;
  std::string dtype_name;  ///< as the file has it, also when it is unknown
  std::vector<index_t> shape;
  index_t offset = 0;                  ///< of the first byte, from the start of the file's data
  index_t size = 0;                    ///< bytes
  std::span<const std::byte> bytes{};  ///< the values, `size` bytes; none while they are in the file alone
  int file = -1;                       ///< descriptor of the open file to read them from, its owner's
  index_t position = 0;                ///< of the first byte in that file

  /// \brief Number of elements, 1 for rank 0.
  [[nodiscard]] index_t count() const {
    index_t product = 1;
    for (const index_t dimension : shape) product *= dimension;
    return product;
  }
};

/// \brief A tensor with its values in memory: those of its file where they are there, else its own, aligned to cache
/// lines. Must not outlive the file.
class loaded_tensor {
 public:
  /// \param name  of the file, for messages
  /// \throws io_error when the file was cut since it was opened
  loaded_tensor(const tensor_info& tensor, const std::string& name) : info_{tensor} {
    if (tensor.size == 0 || !tensor.bytes.empty()) return;
    PESC_EXPECTS(tensor.file >= 0, name, ": the values of tensor ", in_quotes(tensor.name),
                 " are not in memory");
    own_ = buffer<std::byte>(tensor.size);
    const std::span<std::byte> values{own_.data(), static_cast<std::size_t>(own_.size())};
    detail::read_exactly_at(tensor.file, tensor.position, values, name);
    info_.bytes = values;
  }

  [[nodiscard]] const tensor_info& operator*() const { return info_; }
  [[nodiscard]] const tensor_info* operator->() const { return &info_; }

 private:
  tensor_info info_;
  buffer<std::byte> own_;
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

/// \brief Writes the values of a tensor of F32, F16, BF16, F64 or a block type as floats to `out`, one for each.
/// \param file  name for messages
/// \throws format_error for other types, io_error
inline void to_floats(const tensor_info& tensor, const std::string& file, vector_view<float> out) {
  const loaded_tensor values(tensor, file);
  const std::span<const std::byte> bytes = values->bytes;
  const auto convert = [&]<class T>(T) {
    PESC_ASSERT(bytes.size() == static_cast<std::size_t>(out.size) * sizeof(T));
    for (index_t i = 0; i < out.size; ++i) {
      const T value = load_unaligned<T>(bytes.data() + static_cast<std::size_t>(i) * sizeof(T));
      if constexpr (std::is_same_v<T, double>)
        out[i] = static_cast<float>(value);
      else
        out[i] = to_float(value);
    }
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
    case element_type::q4_0:
    case element_type::q4_1:
    case element_type::q8_0:
      return decode_blocks(tensor.dtype, bytes, out);
    default:
      detail::raise<format_error>(detail::concat(file, ": tensor ", in_quotes(tensor.name), " is ",
                                                 one_line(tensor.dtype_name, 40),
                                                 ", expected F32, F16, BF16 or F64"));
  }
}
[[nodiscard]] inline std::vector<float> to_floats(const tensor_info& tensor, const std::string& file) {
  const block_size block = block_of(tensor.dtype);
  const index_t width = block.bytes > 0 ? block.bytes : bits_of(tensor.dtype) / 8;
  std::vector<float> out(static_cast<std::size_t>(width > 0 ? tensor.size / width * block.weights : 0));
  to_floats(tensor, file, vector_view<float>{out.data(), static_cast<index_t>(out.size())});
  return out;
}

/// \brief Values of a tensor whose type is exactly `T`.
/// \param file  name for messages
/// \throws format_error for other types, io_error
template <class T>
[[nodiscard]] std::vector<T> values_of(const tensor_info& tensor, const std::string& file) {
  constexpr element_type wanted = element_type_of<T>;
  static_assert(wanted != element_type::unknown, "pesc: no file type holds values of this C++ type");
  if (tensor.dtype != wanted)
    detail::raise<format_error>(detail::concat(file, ": tensor ", in_quotes(tensor.name), " is ",
                                               one_line(tensor.dtype_name, 40), ", expected ",
                                               name_of(wanted)));
  const loaded_tensor values(tensor, file);
  std::vector<T> out(values->bytes.size() / sizeof(T));
  if (!out.empty()) std::memcpy(out.data(), values->bytes.data(), out.size() * sizeof(T));
  return out;
}

}  // namespace pesc
