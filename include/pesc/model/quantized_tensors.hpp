// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cmath>
#include <concepts>
#include <cstring>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "pesc/io/safetensors_writer.hpp"
#include "pesc/io/tensor_info.hpp"
#include "pesc/model/quant_state.hpp"
#include "pesc/quant/quantized_matrix.hpp"

// The serialised form of bitsandbytes: beside the packed codes `W` lie `W.absmax`, `W.quant_map`, for nested
// scales `W.nested_absmax` and `W.nested_quant_map`, and the JSON of `quant_state` as bytes of a tensor whose
// name tells the kind.
//
// A `source` below is anything with `find(name)` that gives a `const tensor_info*` or null.

namespace pesc {

/// \brief What a file says of a 4-bit weight beyond its values; needed to write the same bytes again.
struct stored_form {
  std::string dtype = "float32";            ///< of the weight before it was quantised
  element_type storage = element_type::u8;  ///< the type under which the packed bytes are listed
  friend bool operator==(const stored_form&, const stored_form&) = default;
};

/// \brief Forms by the names of their weights.
using stored_forms = std::map<std::string, stored_form, std::less<>>;

/// \brief A 4-bit weight as its file holds it.
template <QuantFormat Format = any_format>
struct stored_matrix {
  quantized_matrix<Format, row_blocks> weight;
  stored_form form;
};

namespace detail {

inline constexpr const char* quant_state_suffix[2] = {".quant_state.bitsandbytes__nf4",
                                                      ".quant_state.bitsandbytes__fp4"};

template <class Source>
const tensor_info& part_of_weight(Source& source, const std::string& file, const std::string& weight,
                                  const char* suffix) {
  const tensor_info* part = source.find(weight + suffix);
  if (part == nullptr)
    raise<format_error>(
        concat(file, ": 4-bit tensor ", in_quotes(weight), " lacks ", in_quotes(weight + suffix)));
  return *part;
}

/// \brief Copies a part of a weight whose type and size are known.
template <class T>
void copy_part(const std::string& file, const tensor_info& part, vector_view<T> to) {
  if (part.dtype != element_type_of<T> || part.count() != to.size)
    raise<format_error>(concat(file, ": tensor ", in_quotes(part.name), " is ", shape_text(part.shape), " ",
                               one_line(part.dtype_name, 40), ", expected ", to.size, " of ",
                               name_of(element_type_of<T>)));
  const loaded_tensor values(part, file);
  if (to.size > 0) std::memcpy(to.data, values->bytes.data(), values->bytes.size());
}

inline void check_finite(const std::string& file, const tensor_info& part, vector_view<const float> values) {
  for (index_t i = 0; i < values.size; ++i)
    if (!std::isfinite(values[i]))
      raise<format_error>(concat(file, ": tensor ", in_quotes(part.name), " is ", values[i], " at entry ", i,
                                 ", expected finite numbers"));
}

/// \brief The levels that a file stores. Builds differ in last bits; anything further apart is another code.
inline array<float, 16> read_levels(const std::string& file, const tensor_info& part,
                                    const format_info& format) {
  array<float, 16> stored{};
  copy_part(file, part, vector_view<float>{stored.data(), 16});
  for (std::size_t i = 0; i < 16; ++i)
    if (!(std::fabs(stored[i] - format.levels[i]) <= 1e-6f))
      raise<format_error>(concat(file, ": tensor ", in_quotes(part.name), " differs from ", format.name,
                                 " at entry ", i, " (", stored[i], " vs ", format.levels[i], ")"));
  return stored;
}

/// \brief The bytes of the packed codes, whatever type they are listed under; their count must fit the shape.
inline void check_codes(const std::string& file, const tensor_info& weight, const quant_state& state) {
  const index_t need = ceil_div(state.elements(), 2);
  if (weight.size != need)
    raise<format_error>(concat(file, ": tensor ", in_quotes(weight.name), " has ", weight.size, " bytes, [",
                               state.rows, ", ", state.cols, "] in 4 bits needs ", need));
  switch (weight.dtype) {
    case element_type::u8:
    case element_type::i8:
    case element_type::bf16:
    case element_type::f16:
    case element_type::f32:
    case element_type::f64:
      return;
    default:
      raise<format_error>(concat(file, ": tensor ", in_quotes(weight.name), " lists its 4-bit codes as ",
                                 one_line(weight.dtype_name, 40), ", expected U8, BF16, F16 or F32"));
  }
}

}  // namespace detail

/// \brief The tensor with the JSON of a 4-bit weight, or null where the weight is stored as numbers.
template <class Source>
[[nodiscard]] const tensor_info* find_quant_state(Source& source, const std::string& weight) {
  for (const char* suffix : detail::quant_state_suffix)
    if (const tensor_info* found = source.find(weight + suffix)) return found;
  return nullptr;
}

/// \brief The checked JSON of a 4-bit weight.
/// \param file  name for messages
/// \throws format_error
[[nodiscard]] inline quant_state read_quant_state(const tensor_info& tensor, const std::string& file) {
  const std::string where = detail::concat(file, ": tensor ", in_quotes(tensor.name));
  if (tensor.dtype != element_type::u8)
    detail::raise<format_error>(
        detail::concat(where, " is ", one_line(tensor.dtype_name, 40), ", expected U8"));
  quant_state out = parse_quant_state(as_text(loaded_tensor(tensor, file)->bytes), where);
  if (!tensor.name.ends_with(out.quant_type))
    detail::raise<format_error>(
        detail::concat(where, " says ", in_quotes(out.quant_type), ", its name says otherwise"));
  return out;
}

/// \brief Reads a 4-bit weight, plain or nested, without changing a bit; the stored tables are used (a fixed
/// format has its own levels).
/// \param file  name for messages
/// \throws format_error, shape_error where `Format` is fixed and another is stored
template <QuantFormat Format = any_format, class Source>
[[nodiscard]] stored_matrix<Format> read_quantized(Source& source, const std::string& name,
                                                   const std::string& file) {
  const tensor_info* state_tensor = find_quant_state(source, name);
  if (state_tensor == nullptr)
    detail::raise<format_error>(
        detail::concat(file, ": tensor ", in_quotes(name), " has no quant_state beside it"));
  const quant_state state = read_quant_state(*state_tensor, file);
  const tensor_info& codes = detail::part_of_weight(source, file, name, "");
  detail::check_codes(file, codes, state);
  if (state.nested != (source.find(name + ".nested_absmax") != nullptr))
    detail::raise<format_error>(
        detail::concat(file, ": 4-bit tensor ", in_quotes(name),
                       state.nested ? " has nested scales by its quant_state but no \"nested_absmax\""
                                    : " has \"nested_absmax\" but no nested scales by its quant_state"));
  format_info format = state.format();
  const index_t blocks = format.blocks(state.elements());
  const tensor_info& absmax = detail::part_of_weight(source, file, name, ".absmax");
  const auto levels =
      detail::read_levels(file, detail::part_of_weight(source, file, name, ".quant_map"), format);
  if constexpr (std::same_as<Format, any_format>) format.levels = levels;
  if (absmax.count() != blocks)
    detail::raise<format_error>(detail::concat(file, ": tensor ", in_quotes(absmax.name), " has ",
                                               absmax.count(), " entries, expected ", blocks, ": one for ",
                                               state.block, " weights"));
  stored_matrix<Format> out{{format, state.rows, state.cols}, {state.dtype, codes.dtype}};
  auto& weight = out.weight;
  const loaded_tensor packed(codes, file);
  std::memcpy(weight.codes().data, packed->bytes.data(), packed->bytes.size());
  if (!state.nested) {
    detail::copy_part(file, absmax, weight.absmax());
    detail::check_finite(file, absmax, as_const(weight.absmax()));
    return out;
  }
  detail::copy_part(file, absmax, weight.scale_codes());
  for (const bool map : {false, true}) {
    const tensor_info& part =
        detail::part_of_weight(source, file, name, map ? ".nested_quant_map" : ".nested_absmax");
    const auto to = map ? weight.map() : weight.nested_absmax();
    detail::copy_part(file, part, to);
    detail::check_finite(file, part, as_const(to));
  }
  weight.offset() = state.nested_offset;
  return out;
}

namespace detail {

template <class T>
void send(byte_sink sink, vector_view<const T> values) {
  sink(std::as_bytes(std::span<const T>{values.data, static_cast<std::size_t>(values.size)}));
}

/// \brief Adds a tensor whose bytes are a copy held by the writer.
inline void add_copy(safetensors_writer& out, std::string name, element_type type, std::vector<index_t> shape,
                     std::span<const std::byte> bytes) {
  out.add(std::move(name), type, std::move(shape),
          [copy = std::vector<std::byte>(bytes.begin(), bytes.end())](byte_sink sink) { sink(copy); });
}

/// \brief Calls `f` with the weight in the order of files, made from the order of kernels if need be.
template <class Format, class Layout, class F>
void in_file_order(const quantized_matrix<Format, Layout>& weight, F&& f) {
  if constexpr (std::is_same_v<Layout, panels>)
    f(unpack(weight));
  else
    f(weight);
}

template <class Format, class Layout>
void add_scales(safetensors_writer& out, const std::string& name,
                const quantized_matrix<Format, Layout>& weight) {
  const auto* w = &weight;
  const index_t blocks = weight.format().blocks(weight.rows() * weight.cols());
  if (weight.format().scales == scale_kind::plain) {
    out.add(name + ".absmax", element_type::f32, {blocks},
            [w](byte_sink sink) { in_file_order(*w, [&](const auto& m) { send(sink, m.absmax()); }); });
    return;
  }
  out.add(name + ".absmax", element_type::u8, {blocks},
          [w](byte_sink sink) { in_file_order(*w, [&](const auto& m) { send(sink, m.scale_codes()); }); });
  out.add(name + ".nested_absmax", element_type::f32, {weight.nested_absmax().size},
          [w](byte_sink sink) { send(sink, w->nested_absmax()); });
  out.add(name + ".nested_quant_map", element_type::f32, {index_t{256}},
          [w](byte_sink sink) { send(sink, w->map()); });
}

/// \brief The type of a tensor of numbers.
inline element_type file_type(element_kind kind) {
  return kind == element_kind::f32    ? element_type::f32
         : kind == element_kind::bf16 ? element_type::bf16
                                      : element_type::f16;
}

/// \brief The packed codes that `provider` makes, listed under the type that the form tells.
template <class Provider>
void add_codes(safetensors_writer& out, const std::string& name, index_t bytes, const stored_form& form,
               Provider provider) {
  const index_t width = bits_of(form.storage) / 8;
  // A file of another storage type holds a whole number of its elements; bytes always fit.
  const bool fits = width > 0 && bytes % width == 0;
  out.add(name, fits ? form.storage : element_type::u8, {fits ? bytes / width : bytes, 1},
          std::move(provider));
}

/// \brief The levels of a 4-bit weight and the JSON that describes it.
template <QuantFormat Format, class Layout>
void add_description(safetensors_writer& out, const std::string& name,
                     const quantized_matrix<Format, Layout>& weight, const stored_form& form) {
  const format_info format = weight.format();
  // Files hold a plain zero where the code has a sign.
  array<float, 16> levels = format.levels;
  for (float& level : levels) level += 0.0f;
  add_copy(out, name + ".quant_map", element_type::f32, {index_t{16}}, std::as_bytes(std::span{levels}));
  const quant_state state{std::string{format.name},
                          format.block,
                          form.dtype,
                          weight.rows(),
                          weight.cols(),
                          format.scales == scale_kind::double_quant,
                          weight.offset()};
  const std::string text = to_string(state);
  add_copy(out, name + ".quant_state.bitsandbytes__" + state.quant_type, element_type::u8,
           {static_cast<index_t>(text.size())}, as_bytes(text));
}

}  // namespace detail

/// \brief Adds a frozen weight to a file: in the 4-bit form, or as a tensor of numbers.
///
/// The weight must stay where it is until the file is written; a packed one is unpacked then, one at a time.
template <QuantFormat Format, class Layout>
void add_weight(safetensors_writer& out, const std::string& name,
                const quantized_matrix<Format, Layout>& weight, const stored_form& form = {}) {
  const format_info format = weight.format();
  const auto* w = &weight;
  const auto codes = [w](byte_sink sink) {
    detail::in_file_order(*w, [&](const auto& m) { detail::send(sink, m.codes()); });
  };
  if (format.element != element_kind::code4) {
    out.add(name, detail::file_type(format.element), {weight.rows(), weight.cols()}, codes);
    return;
  }
  detail::add_codes(out, name, format.code_bytes(weight.rows() * weight.cols()), form, codes);
  detail::add_scales(out, name, weight);
  detail::add_description(out, name, weight, form);
}

/// \brief Adds a 4-bit weight that `make` makes: now, for its scales, and again when its codes are written, so that no
/// more than one is in memory.
template <class Make>
void add_made_weight(safetensors_writer& out, const std::string& name, const stored_form& form, Make make) {
  const auto weight = make();
  const auto bytes_of = [](auto view) {
    return std::as_bytes(std::span{view.data, static_cast<std::size_t>(view.size)});
  };
  const index_t count = weight.rows() * weight.cols();
  const index_t blocks = weight.format().blocks(count);
  if (weight.format().scales == scale_kind::plain) {
    detail::add_copy(out, name + ".absmax", element_type::f32, {blocks}, bytes_of(weight.absmax()));
  } else {
    detail::add_copy(out, name + ".absmax", element_type::u8, {blocks}, bytes_of(weight.scale_codes()));
    detail::add_copy(out, name + ".nested_absmax", element_type::f32, {weight.nested_absmax().size},
                     bytes_of(weight.nested_absmax()));
    detail::add_copy(out, name + ".nested_quant_map", element_type::f32, {index_t{256}},
                     bytes_of(weight.map()));
  }
  detail::add_description(out, name, weight, form);
  detail::add_codes(out, name, weight.format().code_bytes(count), form, [make](byte_sink sink) {
    const auto again = make();
    detail::send(sink, std::as_const(again).codes());
  });
}

/// \brief A weight that would be gone when the file is written.
template <QuantFormat Format, class Layout>
void add_weight(safetensors_writer&, const std::string&, const quantized_matrix<Format, Layout>&&,
                const stored_form& = {}) = delete;

}  // namespace pesc
