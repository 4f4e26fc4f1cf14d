// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "pesc/io/element_type.hpp"
#include "pesc/io/json.hpp"
#include "pesc/quant/fp4.hpp"
#include "pesc/quant/nf4.hpp"

namespace pesc {

/// \brief What the JSON beside a stored 4-bit weight says of it.
struct quant_state {
  std::string quant_type = "nf4";  ///< "nf4" or "fp4"
  index_t block = 64;
  std::string dtype = "float32";  ///< of the weight before it was quantised: what it is restored to
  index_t rows = 0;
  index_t cols = 0;
  bool nested = false;  ///< scales are quantised again, in blocks of 256
  float nested_offset = 0;

  [[nodiscard]] index_t elements() const { return rows * cols; }

  [[nodiscard]] format_info format() const {
    const scale_kind scales = nested ? scale_kind::double_quant : scale_kind::plain;
    const int size = static_cast<int>(block);
    return quant_type == "nf4" ? make_code4_info(nf4<>::levels(), size, scales, "nf4")
                               : make_code4_info(fp4<>::levels(), size, scales, "fp4");
  }

  friend bool operator==(const quant_state&, const quant_state&) = default;
};

namespace detail {

inline void parse_quant_shape(const json_fields& f, quant_state& out) {
  const auto& list = f.get_list("shape");
  if (list.size() != 2)
    raise<format_error>(concat(f.where("shape"), " has ", list.size(), " dimensions, expected 2"));
  for (const json& dimension : list) {
    const auto size = dimension.to_int();
    if (!size) f.wrong_type("shape", dimension, "a list of integers");
    if (*size < 1 || *size >= index_t{1} << 31)
      raise<format_error>(concat(f.where("shape"), " holds ", *size, ", expected 1 to 2^31 - 1"));
  }
  out.rows = *list[0].to_int();
  out.cols = *list[1].to_int();
  const auto elements = checked_product(out.rows, out.cols);
  if (!elements || *elements > index_t{1} << 44)
    raise<format_error>(
        concat(f.where("shape"), " is [", out.rows, ", ", out.cols, "], expected at most 2^44 elements"));
}

inline void expect_text(const json_fields& f, std::string_view key, const std::string& found,
                        std::string_view expected) {
  raise<format_error>(concat(f.where(key), " is ", in_quotes(found), ", expected ", expected));
}

}  // namespace detail

/// \brief Reads the JSON, with its keys in any order; a weight is nested if `nested_absmax` lies beside it.
/// \param where  file and tensor, for messages
/// \throws format_error
[[nodiscard]] inline quant_state parse_quant_state(std::string_view text, const std::string& where) {
  const json value = parse_json(text, where, {8, 1 << 16, 1 << 12});
  const json_fields f{value, where};
  quant_state out;
  out.quant_type = f.get_string("quant_type");
  if (out.quant_type != "nf4" && out.quant_type != "fp4")
    detail::expect_text(f, "quant_type", out.quant_type, "\"nf4\" or \"fp4\"");
  out.block = f.get_int("blocksize");
  if (out.block < 32 || out.block > 4096 || (out.block & (out.block - 1)) != 0)
    detail::raise<format_error>(
        detail::concat(f.where("blocksize"), " is ", out.block, ", expected a power of two from 32 to 4096"));
  out.dtype = f.get_string("dtype");
  if (out.dtype != "float32" && out.dtype != "float16" && out.dtype != "bfloat16")
    detail::expect_text(f, "dtype", out.dtype, "\"float32\", \"float16\" or \"bfloat16\"");
  detail::parse_quant_shape(f, out);
  out.nested = f.has("nested_blocksize") || f.has("nested_offset") || f.has("nested_dtype");
  if (!out.nested) return out;
  if (f.get_int("nested_blocksize") != nested_block)
    detail::raise<format_error>(detail::concat(f.where("nested_blocksize"), " is ",
                                               f.get_int("nested_blocksize"), ", expected ", nested_block));
  if (f.get_string("nested_dtype", "float32") != "float32")
    detail::expect_text(f, "nested_dtype", f.get_string("nested_dtype"), "\"float32\"");
  const double offset = f.get_double("nested_offset");
  if (!(offset >= -3.4e38 && offset <= 3.4e38))
    detail::raise<format_error>(
        detail::concat(f.where("nested_offset"), " is ", offset, ", expected a finite float"));
  out.nested_offset = static_cast<float>(offset);
  return out;
}

/// \brief The JSON text, to the byte as Python's default writer makes it.
///
/// The offset is printed as the shortest decimal of the double of the float, so it reads back unchanged.
[[nodiscard]] inline std::string to_string(const quant_state& state) {
  json shape = json::array();
  shape.push_back(state.rows).push_back(state.cols);
  json out = json::object();
  out.set("quant_type", state.quant_type)
      .set("blocksize", state.block)
      .set("dtype", state.dtype)
      .set("shape", std::move(shape));
  if (state.nested)
    out.set("nested_blocksize", index_t{nested_block})
        .set("nested_dtype", "float32")
        .set("nested_offset", static_cast<double>(state.nested_offset));
  return to_spaced_string(out);
}

}  // namespace pesc
