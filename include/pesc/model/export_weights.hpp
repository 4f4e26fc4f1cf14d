// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "pesc/io/sharded_writer.hpp"
#include "pesc/model/export_options.hpp"
#include "pesc/model/low_rank.hpp"
#include "pesc/model/quantized_tensors.hpp"
#include "pesc/model/row_order.hpp"
#include "pesc/quant/nf4.hpp"
#include "pesc/quant/quantize.hpp"

// The tensors of a loaded model for other programs. Reads the weights and, where there are low-rank updates, these;
// keeps nothing: a projection is unpacked, decoded, merged, put in order and rounded when its bytes are written, one
// at a time.

namespace pesc {
namespace detail {

/// \brief The type that a quant_state or config.json names "bfloat16".
inline element_type type_of_dtype(const std::string& dtype) {
  return dtype == "bfloat16"  ? element_type::bf16
         : dtype == "float16" ? element_type::f16
                              : element_type::f32;
}

/// \brief The type itself where it is one that is written, else F32.
inline element_type written_type(element_type type) {
  return type == element_type::bf16 || type == element_type::f16 ? type : element_type::f32;
}

/// \brief Sends floats as numbers of a type, piece by piece.
inline void send_numbers(byte_sink sink, std::span<const float> values, element_type type) {
  if (type == element_type::f32) return sink(std::as_bytes(values));
  std::uint16_t piece[2048];
  while (!values.empty()) {
    const std::size_t count = std::min(values.size(), std::size(piece));
    for (std::size_t i = 0; i < count; ++i)
      piece[i] = type == element_type::bf16 ? to_bf16(values[i]).bits : to_f16(values[i]).bits;
    sink(std::as_bytes(std::span{piece, count}));
    values = values.subspan(count);
  }
}

/// \brief Adds the tensors of one model to a set of files.
class weight_exporter {
 public:
  /// \param model, out  must stay until the files are written
  weight_exporter(const loaded_model<>& model, const export_options& options, sharded_writer& out)
      : model_{model},
        options_{options},
        out_{out},
        order_{model.config.llama.head_dim, model.config.llama.rope.pairing, rope_pairing::halves} {}

  void add_all() {
    const model_weights<any_format>& w = model_.weights;
    const llama_shape& s = w.shape;
    floats("model.embed_tokens.weight", w.embedding, {s.vocabulary, s.hidden});
    for (std::size_t l = 0; l < w.layers.size(); ++l)
      layer(w.layers[l], layer_prefix(static_cast<index_t>(l)));
    floats("model.norm.weight", w.final_norm, {s.hidden});
    if (w.head.size() > 0) floats("lm_head.weight", w.head, {s.vocabulary, s.hidden});
  }

  /// \brief The one type of all numbers, F32 where there are several.
  [[nodiscard]] element_type dtype() const { return dtype_.value_or(element_type::f32); }

  /// \brief How the 4-bit weights are stored; nothing where there are none.
  [[nodiscard]] const std::optional<quantization_config>& quantization() const { return quantization_; }

 private:
  void layer(const layer_weights<any_format>& layer, const std::string& prefix) {
    const index_t hidden = model_.weights.shape.hidden;
    floats(prefix + "input_layernorm.weight", layer.input_norm, {hidden});
    floats(prefix + "post_attention_layernorm.weight", layer.post_norm, {hidden});
    layer_weights<any_format>::for_each_linear(
        layer, [&, this](const char* name, const owned_linear<any_format>& linear) {
          if (options_.target == export_target::hf_4bit)
            code4(prefix + name, linear.weight);
          else
            numbers(prefix + name, linear.weight);
          if (linear.bias.size() > 0) bias(prefix + name + ".bias", linear.bias);
        });
    if (model_.sparse()) experts(prefix);
  }

  [[nodiscard]] stored_form form_of(const std::string& name) const {
    const auto at = model_.forms.find(name);
    return at == model_.forms.end() ? stored_form{} : at->second;
  }

  [[nodiscard]] row_order order_of(const std::string& name) const {
    return has_head_rows(name) ? order_ : row_order{};
  }

  /// \brief The type of a tensor of numbers that was stored as `stored`; notes it.
  element_type note(element_type stored) {
    const element_type type = options_.dtype.value_or(stored);
    dtype_ = dtype_.value_or(type) == type ? type : element_type::f32;
    return type;
  }

  static index_t bytes(element_type type, index_t count) { return count * bits_of(type) / 8; }

  void floats(const std::string& name, const buffer<float>& values, std::vector<index_t> shape) {
    const element_type type = note(type_of_dtype(form_of(name).dtype));
    out_.next(bytes(type, values.size())).add(name, type, std::move(shape), [&values, type](byte_sink sink) {
      send_numbers(sink, {values.data(), static_cast<std::size_t>(values.size())}, type);
    });
  }

  void bias(const std::string& name, const buffer<float>& values) {
    const element_type type = note(type_of_dtype(form_of(name).dtype));
    out_.next(bytes(type, values.size()))
        .add(name, type, {values.size()}, [&values, type, order = order_of(name)](byte_sink sink) {
          for (index_t i = 0; i < values.size(); ++i)
            send_numbers(sink, {values.data() + order.source(i), 1}, type);
        });
  }

  /// \brief A projection as floats: decoded, its update added, its rows in the order of the target.
  [[nodiscard]] buffer<float> decoded(const std::string& module,
                                      const quantized_matrix<any_format, panels>& weight) const {
    buffer<float> out(weight.rows() * weight.cols());
    const auto values = out.matrix(weight.rows(), weight.cols());
    dequantize(unpack(weight).view(), values);
    if (model_.lora && has_update(model_.trainables, module))
      add_update(model_.trainables, *model_.lora, module, values, model_.name);
    const row_order order = order_of(module + ".weight");
    if (!order.changes()) return out;
    buffer<float> turned(out.size());
    for (index_t r = 0; r < weight.rows(); ++r)
      std::copy_n(values.row(order.source(r)), weight.cols(), turned.data() + r * weight.cols());
    return turned;
  }

  void numbers(const std::string& module, const quantized_matrix<any_format, panels>& weight) {
    const element_type type = note(number_type(module, weight.format()));
    out_.next(bytes(type, weight.rows() * weight.cols()))
        .add(module + ".weight", type, {weight.rows(), weight.cols()},
             [this, module, type, &weight](byte_sink sink) {
               const buffer<float> values = decoded(module, weight);
               send_numbers(sink, {values.data(), static_cast<std::size_t>(values.size())}, type);
             });
  }

  /// \brief The type that the numbers of a projection have, or had before they were quantised.
  [[nodiscard]] element_type number_type(const std::string& module, const format_info& format) const {
    if (format.scales == scale_kind::none) return file_type(format.element);
    return type_of_dtype(form_of(module + ".weight").dtype);
  }

  void code4(const std::string& module, const quantized_matrix<any_format, panels>& weight) {
    const std::string name = module + ".weight";
    const format_info format = weight.format();
    const bool kept = format.element == element_kind::code4 && !format.is_read_only();
    const bool merges = model_.lora && has_update(model_.trainables, module);
    const row_order order = order_of(name);
    const bool splits = order.changes() && weight.cols() % format.block != 0;
    if (kept && !options_.requantize && (merges || splits))
      raise<format_error>(concat(model_.name, ": ", in_quotes(name), " is kept in 4 bits, and ",
                                 merges
                                     ? "a low-rank update cannot be merged into it"
                                     : concat("its rows of ", weight.cols(),
                                              " weights share scales, so that they cannot be put in order"),
                                 ". Use hf, or quantise it again, which loses precision."));
    stored_form form = kept ? form_of(name) : stored_form{};
    if (!kept) form.dtype = dtype_of_numbers(options_.dtype.value_or(number_type(module, format)));
    // Codes, and at most 5 bytes for a block of 32 or more; the rest of the parts is small.
    const index_t size = weight.rows() * weight.cols() / 2 + weight.rows() * weight.cols() / 32 * 5 + 4096;
    safetensors_writer& file = out_.next(size);
    if (kept && !merges && !order.changes()) {
      note_quantization(format, form);
      return add_weight(file, name, weight, form);
    }
    if (kept && !merges && !splits) {
      note_quantization(format, form);
      return add_made_weight(file, name, form, [&weight, order] { return reorder(unpack(weight), order); });
    }
    const format_info made =
        kept ? format : make_code4_info(nf4<>::levels(), 64, scale_kind::double_quant, "nf4");
    note_quantization(made, form);
    add_made_weight(file, name, form, [this, module, made, &weight] {
      buffer<float> values = decoded(module, weight);
      return quantize<any_format>(made, as_const(values.matrix(weight.rows(), weight.cols())));
    });
  }

  void note_quantization(const format_info& format, const stored_form& form) {
    if (quantization_) return;
    const auto& before = model_.config.quantization;
    quantization_ = quantization_config{format.name, format.scales == scale_kind::double_quant,
                                        before ? before->compute_dtype : form.dtype,
                                        before ? before->quant_storage : "uint8"};
  }

  /// \brief Router and adapters of a layer, as they are stored.
  void experts(const std::string& prefix) {
    const auto add = [&, this](const std::string& name) {
      const tensor_info& tensor = *model_.trainables.find(name);
      const element_type stored = written_type(tensor.dtype);
      const element_type type = note(stored);
      out_.next(bytes(type, tensor.count()))
          .add(options_.target == export_target::sparsetral ? without_expert_word(name) : name, type,
               tensor.shape, [&tensor, type, this](byte_sink sink) {
                 send_numbers(sink, to_floats(tensor, model_.name), type);
               });
    };
    add(expert_path_name(prefix, "router", 0, false));
    for (index_t e = 0; e < model_.config.pesc->experts; ++e)
      for (const char* part : {"adapter_down", "adapter_up"}) add(expert_path_name(prefix, part, e, true));
  }

  const loaded_model<>& model_;
  const export_options& options_;
  sharded_writer& out_;
  row_order order_;
  std::optional<element_type> dtype_;
  std::optional<quantization_config> quantization_;
};

}  // namespace detail
}  // namespace pesc
