// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "golden.hpp"
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

}  // namespace golden
