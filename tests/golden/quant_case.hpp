// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "on_backend.hpp"
#include "pesc/quant/fp4.hpp"
#include "pesc/quant/nf4.hpp"
#include "pesc/quant/quantize.hpp"

namespace golden {

using any_matrix = pesc::quantized_matrix<pesc::any_format, pesc::row_blocks>;

/// \brief The 4-bit format that the metadata names.
[[nodiscard]] inline pesc::format_info format_of(const golden_case& c) {
  const std::string& type = c.text("quant_type");
  const index_t block = c.integer("blocksize");
  PESC_EXPECTS(block >= 1 && block <= 1 << 20, "block of ", block, " weights");
  const pesc::scale_kind scales = c.flag("nested") ? pesc::scale_kind::double_quant : pesc::scale_kind::plain;
  if (type == "nf4")
    return pesc::make_code4_info(pesc::nf4<>::levels(), static_cast<int>(block), scales, "nf4");
  if (type == "fp4")
    return pesc::make_code4_info(pesc::fp4<>::levels(), static_cast<int>(block), scales, "fp4");
  throw pesc::format_error(c.file().name() + ": quant_type " + pesc::in_quotes(type) +
                           ", expected nf4 or fp4");
}

/// \brief Names of the tensors of a stored 4-bit weight; they differ between kinds.
struct stored_names {
  std::string packed = "packed";
  std::string absmax = "absmax";
  std::string nested_absmax = "nested_absmax";
  std::string map = "nested_code";
  std::string offset = "offset";
};

template <class T, class U>
void fill_from(pesc::vector_view<T> to, const std::vector<U>& from, const std::string& name) {
  PESC_EXPECTS(static_cast<index_t>(from.size()) == to.size, name, " has ", from.size(),
               " entries, expected ", to.size);
  std::copy(from.begin(), from.end(), to.begin());
}

/// \brief A 4-bit weight made of the bytes of the case.
[[nodiscard]] inline any_matrix stored_weight(const golden_case& c, const pesc::format_info& info,
                                              index_t rows, index_t cols, const stored_names& names = {}) {
  any_matrix out(info, rows, cols);
  fill_from(out.codes(), c.bytes(names.packed), names.packed);
  if (info.scales == pesc::scale_kind::plain) {
    fill_from(out.absmax(), c.floats(names.absmax), names.absmax);
    return out;
  }
  fill_from(out.scale_codes(), c.bytes(names.absmax), names.absmax);
  fill_from(out.nested_absmax(), c.floats(names.nested_absmax), names.nested_absmax);
  fill_from(out.map(), c.floats(names.map), names.map);
  out.offset() = c.floats(names.offset).at(0);
  return out;
}

/// \brief All weights as `T`, rounded to `Via` before.
template <pesc::Scalar T, pesc::Scalar Via = float>
[[nodiscard]] std::vector<T> dequantized_as(const any_matrix& weight) {
  std::vector<T> out(static_cast<std::size_t>(weight.rows() * weight.cols()));
  pesc::dequantize<T, Via>(weight.view(), pesc::matrix_view<T>(out.data(), weight.rows(), weight.cols()));
  return out;
}

/// \brief Calls `f` with the tensor as a list of its own element type.
template <class F>
void with_elements(const golden_case& c, const std::string& name, F&& f) {
  switch (c.file().get(name).dtype) {
    case pesc::element_type::bf16:
      return f(c.file().read<pesc::bf16>(name));
    case pesc::element_type::f16:
      return f(c.file().read<pesc::f16>(name));
    default:
      return f(c.file().read<float>(name));
  }
}

/// \brief Positions where the codes differ, apart from values exactly between the two entries, which float
/// tells either from equal distances or from the rounded midpoint.
[[nodiscard]] index_t differing_codes(const std::uint8_t* actual, const std::vector<std::uint8_t>& expected,
                                      const float* scaled, const std::vector<float>& map);

/// \brief `values - offset` over the maximum of their blocks, as the quantiser sees them.
[[nodiscard]] std::vector<float> scaled_by_block(const std::vector<float>& values, float offset,
                                                 index_t block);

/// \brief The stored weight of a case of kind quant4, as a matrix of the last dimension's width.
[[nodiscard]] any_matrix stored_quant4(const golden_case& c);

/// \brief Compares what the library reads in the stored bytes.
void compare_dequantized(const golden_case& c, outcome& out, const any_matrix& stored);

/// \brief Compares double-quantised scales with the reference.
///
/// \param quantized  from the offset of the file
/// \param plain  the same weight with its scales as they are
void compare_nested(const golden_case& c, outcome& out, const any_matrix& quantized, const any_matrix& plain,
                    const any_matrix& stored, float computed_offset);

/// \brief Compares bytes that were packed for kernels and unpacked again with what they were.
void compare_unpacked(outcome& out, const any_matrix& back, const any_matrix& stored);

/// \brief Quantises the input of a case of kind quant4 by `quantize(info, offset)`, which gives a matrix in
/// the caller's memory, and compares every tensor.
template <class Quantize>
void compare_quantized(const golden_case& c, outcome& out, const any_matrix& stored, Quantize&& quantize) {
  const pesc::format_info& info = stored.format();
  if (info.scales == pesc::scale_kind::plain) {
    const any_matrix quantized = quantize(info, nullptr);
    out.exact("packed", quantized.codes(), stored.codes());
    out.exact("absmax", quantized.absmax(), stored.absmax());
    return;
  }
  pesc::format_info plain_info = info;
  plain_info.scales = pesc::scale_kind::plain;
  const any_matrix plain = quantize(plain_info, nullptr);
  const float offset = stored.offset();
  const any_matrix quantized = quantize(info, &offset);
  out.exact("packed", quantized.codes(), stored.codes());
  compare_nested(c, out, quantized, plain, stored, quantize(info, nullptr).offset());
}

/// \brief The kernels of a backend give the bits of the plain loop.
///
/// \param weight  in either order, in the memory of the backend
template <pesc::Scalar T, class X, class Weight>
void compare_kernel(X& ctx, outcome& out, const Weight& weight, const std::vector<T>& expected,
                    const std::string& name) {
  placed<X, T> actual(ctx, weight.rows * weight.cols);
  dequantize(ctx, weight, actual.matrix(weight.rows, weight.cols));
  out.exact(name, actual.values(), expected);
}

}  // namespace golden
