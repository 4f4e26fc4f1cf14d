// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "pesc/core/function_ref.hpp"
#include "pesc/model/block_weights.hpp"
#include "pesc/model/low_rank.hpp"
#include "pesc/model/missing_tensors.hpp"
#include "pesc/model/model_files.hpp"
#include "pesc/model/quantized_tensors.hpp"
#include "pesc/model/weights.hpp"
#include "pesc/quant/unquantized.hpp"

namespace pesc {

/// \brief The part of a configuration that the computation needs.
[[nodiscard]] inline llama_shape shape_of(const llama_config& c) {
  return {c.vocab, c.hidden,   c.intermediate, c.layers,
          c.heads, c.kv_heads, c.head_dim,     static_cast<float>(c.rms_eps),
          c.rope};
}

/// \brief How frozen weights are kept in memory.
struct weight_options {
  /// \brief Format of the projections; nothing: as they are stored. Weights that are stored in 4 bits are
  /// never quantised again: they stay as they are, or are decoded where a format of numbers is asked for. The
  /// blocks of GGUF files are decoded and quantised to any format asked for.
  std::optional<format_info> format{};
  /// \brief Called after each layer with the number of those that are done and of all, if set.
  const function_ref<void(index_t, index_t)>* on_layer = nullptr;
  /// \brief Quantise 4-bit weights again that an update is merged into; without it that is an error.
  bool requantize = false;
};

/// \brief Low-rank updates that are added to the weights as they are read.
struct merged_updates {
  const tensor_set& tensors;
  const lora_config& config;
};

namespace detail {

template <class T>
void check_numbers(const std::string& file, const tensor_info& tensor, vector_view<const T> values) {
  for (index_t i = 0; i < values.size; ++i) {
    const float x = to_float(values[i]);
    if (!std::isfinite(x)) [[unlikely]]
      raise<numeric_error>(concat(file, ": tensor ", in_quotes(tensor.name), " is ",
                                  std::isnan(x) ? "NaN" : "infinite", " at entry ", i, " of ",
                                  shape_text(tensor.shape), ", expected finite weights"));
  }
}

/// \brief The name that a quant_state and config.json have for a type of numbers; blocks count as float.
inline const char* dtype_of_numbers(element_type type) {
  return type == element_type::bf16 ? "bfloat16" : type == element_type::f16 ? "float16" : "float32";
}

/// \brief A tensor that stays in float whatever type the file has; notes that type.
inline buffer<float> load_floats(model_files& files, const std::string& name, stored_forms& forms) {
  const loaded_tensor tensor(*files.find(name), files.name());
  forms.insert_or_assign(name, stored_form{dtype_of_numbers(tensor->dtype)});
  buffer<float> out(tensor->count());
  to_floats(*tensor, files.name(), out.view());
  check_numbers<float>(files.name(), *tensor, out.view());
  return out;
}

inline format_info format_of_numbers(element_type type) {
  return type == element_type::bf16  ? unquantized<bf16>::info()
         : type == element_type::f16 ? unquantized<f16>::info()
                                     : unquantized<float>::info();
}

template <QuantFormat Format, class T>
quantized_matrix<Format, panels> quantize_values(const std::string& file, const tensor_info& tensor,
                                                 const T* values, const format_info& format) {
  check_numbers(file, tensor, vector_view<const T>{values, tensor.count()});
  return pack(quantize<Format>(format, matrix_view<const T>{values, tensor.shape[0], tensor.shape[1]}));
}

/// \brief The values of a tensor in their own type, or null where they lie at an odd address.
template <class T>
const T* values_in_place(const tensor_info& tensor) {
  const auto address = reinterpret_cast<std::uintptr_t>(tensor.bytes.data());
  return address % alignof(T) == 0 ? reinterpret_cast<const T*>(tensor.bytes.data()) : nullptr;
}

/// \brief A weight stored as numbers, in the format asked for or in its own.
template <QuantFormat Format>
quantized_matrix<Format, panels> load_numbers(const std::string& file, const tensor_info& stored,
                                              const weight_options& options) {
  const loaded_tensor tensor(stored, file);
  if (is_block_type(stored.dtype) && !options.format) {
    auto blocks = read_blocks<Format>(*tensor);
    check_numbers<float>(file, stored, as_const(blocks.absmax()));
    check_numbers<float>(file, stored, as_const(blocks.minimum()));
    return pack(blocks);
  }
  const format_info format = options.format ? *options.format : format_of_numbers(stored.dtype);
  if (stored.dtype == element_type::f32)
    if (const auto* values = values_in_place<float>(*tensor))
      return quantize_values<Format>(file, stored, values, format);
  if (stored.dtype == element_type::bf16)
    if (const auto* values = values_in_place<bf16>(*tensor))
      return quantize_values<Format>(file, stored, values, format);
  if (stored.dtype == element_type::f16)
    if (const auto* values = values_in_place<f16>(*tensor))
      return quantize_values<Format>(file, stored, values, format);
  buffer<float> copy(stored.count());
  to_floats(*tensor, file, copy.view());
  return quantize_values<Format>(file, stored, copy.data(), format);
}

/// \brief A weight stored in 4 bits: its own bytes, or decoded to the numbers asked for.
template <QuantFormat Format>
quantized_matrix<Format, panels> load_code4(model_files& files, const std::string& name,
                                            const weight_options& options, stored_forms& forms,
                                            bool& kept_other) {
  if (options.format && options.format->element != element_kind::code4) {
    const auto stored = read_quantized<any_format>(files, name, files.name());
    const auto& w = stored.weight;
    buffer<float> decoded(w.rows() * w.cols());
    dequantize(w.view(), decoded.matrix(w.rows(), w.cols()));
    return pack(quantize<Format>(*options.format, as_const(decoded.matrix(w.rows(), w.cols()))));
  }
  auto stored = read_quantized<Format>(files, name, files.name());
  const format_info kept = stored.weight.format();
  kept_other = kept_other || (options.format &&
                              (options.format->block != kept.block || options.format->scales != kept.scales ||
                               std::strcmp(options.format->name, kept.name) != 0));
  forms.insert_or_assign(name, std::move(stored.form));
  return pack(stored.weight);
}

/// \brief The format of a weight that an update is added to: the one asked for, or its own where that holds numbers.
inline format_info merged_format(const std::string& file, const std::string& name, const format_info& stored,
                                 const weight_options& options) {
  const bool numbers = options.format && options.format->element != element_kind::code4;
  if (numbers || stored.scales == scale_kind::none || (stored.is_read_only() && options.format))
    return options.format ? *options.format : stored;
  if (options.requantize && !stored.is_read_only()) return options.format ? *options.format : stored;
  raise<format_error>(concat(
      file, ": an update cannot be merged into ", in_quotes(name), ", which is kept as ", stored.name,
      stored.is_read_only() ? ". Ask for another format of the weights."
                            : ". Ask for numbers, or for quantising it again, which loses precision."));
}

/// \brief A weight with its update, decoded and brought into a format again.
template <QuantFormat Format>
quantized_matrix<Format, panels> load_merged(model_files& files, const std::string& module,
                                             const weight_options& options, stored_forms& forms,
                                             const merged_updates& updates) {
  const std::string name = module + ".weight";
  buffer<float> values;
  matrix_view<float> weight;
  format_info format;
  if (find_quant_state(files, name) != nullptr) {
    auto stored = read_quantized<any_format>(files, name, files.name());
    format = merged_format(files.name(), name, stored.weight.format(), options);
    values = buffer<float>(stored.weight.rows() * stored.weight.cols());
    weight = values.matrix(stored.weight.rows(), stored.weight.cols());
    dequantize(stored.weight.view(), weight);
    forms.insert_or_assign(name, std::move(stored.form));
  } else {
    const loaded_tensor stored(*files.find(name), files.name());
    const auto blocks = format_of_blocks(stored->dtype);
    format = merged_format(files.name(), name, blocks ? *blocks : format_of_numbers(stored->dtype), options);
    values = buffer<float>(stored->count());
    weight = values.matrix(stored->shape[0], stored->shape[1]);
    to_floats(*stored, files.name(), values.view());
    check_numbers<float>(files.name(), *stored, std::as_const(values).view());
  }
  add_update(updates.tensors, updates.config, module, weight, files.name());
  return pack(quantize<Format>(format, as_const(weight)));
}

/// \brief Shape of a weight as its file tells it, whichever way it is stored.
inline std::vector<index_t> stored_shape(model_files& files, const std::string& name) {
  if (const tensor_info* state = find_quant_state(files, name)) {
    const quant_state s = read_quant_state(*state, files.name());
    return {s.rows, s.cols};
  }
  return files.find(name)->shape;
}

/// \brief The name under which a tensor of the sparse part is stored.
inline std::string stored_name(model_files& files, const std::string& name) {
  if (files.contains(name)) return name;
  const std::string other = without_expert_word(name);
  return files.contains(other) ? other : name;
}

}  // namespace detail

/// \brief Checks that all tensors are there in the right shapes, and no others, before any is read.
/// \throws format_error naming the first five that are missing or too many
inline void check_tensors(model_files& files) {
  std::vector<std::string> known, missing;
  const auto check = [&](const std::string& wanted, index_t rows, index_t cols) {
    const std::string name = detail::stored_name(files, wanted);
    known.push_back(name);
    if (!files.contains(name)) return missing.push_back(name);
    const std::vector<index_t> shape = cols == 0 ? std::vector{rows} : std::vector{rows, cols};
    const std::vector<index_t> found = detail::stored_shape(files, name);
    if (found != shape)
      detail::raise<format_error>(detail::concat(files.name(), ": tensor ", in_quotes(name), " is ",
                                                 shape_text(found), ", expected ", shape_text(shape),
                                                 " by config.json"));
    for (const char* part : {"", ".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map"})
      static_cast<void>(files.find(name + part));
  };
  const model_config& c = files.config();
  for_each_frozen(c.llama, check);
  if (c.pesc) for_each_expert_path(c.llama, *c.pesc, check);
  std::vector<std::string> extra;
  for (const std::string& name : files.unused_names()) {
    // Old files store rotary frequencies; files of tied models may store the head a second time.
    if (name.ends_with("rotary_emb.inv_freq") || (c.llama.tie_embeddings && name == "lm_head.weight"))
      continue;
    extra.push_back(name);
  }
  if (!missing.empty())
    refuse_missing_tensors(files.name(), missing, static_cast<index_t>(known.size()), extra);
  if (!extra.empty()) refuse_extra_tensors(files.name(), extra, known);
}

/// \brief Reads the frozen tensors, projection by projection: besides the files, one is in memory as numbers
/// at a time.
///
/// \param forms  receives how tensors were stored, so that a save writes the same bytes
/// \param warnings  receives a line when weights stay in another 4-bit format than asked for
/// \throws format_error; numeric_error naming the tensor that is not finite; shape_error where `Format` is
/// fixed and the file stores another
/// \param updates  added to the weights; null: none
template <QuantFormat Format>
[[nodiscard]] model_weights<Format> load_weights(model_files& files, const weight_options& options,
                                                 stored_forms& forms, std::vector<std::string>& warnings,
                                                 const merged_updates* updates = nullptr) {
  check_tensors(files);
  const llama_config& c = files.config().llama;
  model_weights<Format> out;
  out.shape = shape_of(c);
  out.shape.check();
  out.embedding = detail::load_floats(files, "model.embed_tokens.weight", forms);
  out.final_norm = detail::load_floats(files, "model.norm.weight", forms);
  if (!c.tie_embeddings) out.head = detail::load_floats(files, "lm_head.weight", forms);
  bool kept_other = false;
  for (index_t l = 0; l < c.layers; ++l) {
    auto& layer = out.layers.emplace_back();
    const std::string prefix = layer_prefix(l);
    layer.input_norm = detail::load_floats(files, prefix + "input_layernorm.weight", forms);
    layer.post_norm = detail::load_floats(files, prefix + "post_attention_layernorm.weight", forms);
    layer_weights<Format>::for_each_linear(layer, [&](const char* name, owned_linear<Format>& linear) {
      const std::string weight = prefix + name + ".weight";
      if (updates != nullptr && has_update(updates->tensors, prefix + name))
        linear.weight = detail::load_merged<Format>(files, prefix + name, options, forms, *updates);
      else if (find_quant_state(files, weight) != nullptr)
        linear.weight = detail::load_code4<Format>(files, weight, options, forms, kept_other);
      else
        linear.weight = detail::load_numbers<Format>(files.name(), *files.find(weight), options);
      if (files.contains(prefix + name + ".bias"))
        linear.bias = detail::load_floats(files, prefix + name + ".bias", forms);
    });
    if (options.on_layer != nullptr) (*options.on_layer)(l + 1, c.layers);
  }
  out.format = out.layers.front().q.weight.format();
  if (kept_other)
    warnings.push_back(detail::concat(files.name(), ": weights are stored as ", out.format.name,
                                      " in blocks of ", out.format.block,
                                      " and stay so; they are not quantised again"));
  return out;
}

}  // namespace pesc
