// SPDX-License-Identifier: Apache-2.0

#include "projection_case.hpp"

namespace golden {

projection read_projection(const golden_case& c, any_matrix weight) {
  projection p;
  p.weight = std::move(weight);
  p.x = c.floats("input");
  p.dy = c.floats("grad.y");
  if (c.has("bias")) p.bias = c.floats("bias");
  if (c.has("lora_A")) {
    p.rank = c.integer("rank");
    p.scale = static_cast<float>(c.number("scaling"));
    p.a = c.floats("lora_A");
    p.b = c.floats("lora_B");
  }
  const index_t tokens = c.integer("tokens");
  PESC_EXPECTS(static_cast<index_t>(p.x.size()) == tokens * p.in() &&
                   static_cast<index_t>(p.dy.size()) == tokens * p.out(),
               "input of ", p.x.size(), " values for ", tokens, " tokens of width ", p.in());
  PESC_EXPECTS(p.bias.empty() || static_cast<index_t>(p.bias.size()) == p.out(), "bias of ", p.bias.size(),
               " values");
  return p;
}

std::pair<index_t, index_t> projection_sizes(const golden_case& c) {
  const index_t rows = c.integer("out_features");
  const index_t cols = c.integer("in_features");
  PESC_EXPECTS(rows > 0 && cols > 0 && rows < 1 << 20 && cols < 1 << 20, "projection of ", rows, " x ", cols);
  return {rows, cols};
}

double stored_tolerance(const golden_case& c, double bf16, double single) {
  const std::string& dtype = c.text("dtype");
  return dtype == "bfloat16" ? bf16 : dtype == "float16" ? 2e-3 : single;
}

void compare_stored_linear(const golden_case& c, outcome& out, const any_matrix& stored) {
  out.exact("dequant.f32", dequantized_as<float>(stored), c.floats("dequant.f32"));
  const float offset = stored.offset();
  const std::vector<float> weight = c.floats("weight");
  const any_matrix quantized =
      pesc::quantize<pesc::any_format>(stored.format(), view(weight, stored.rows(), stored.cols()), &offset);
  out.exact("packed", quantized.codes(), stored.codes());
  if (stored.format().scales == pesc::scale_kind::plain)
    out.exact("absmax", quantized.absmax(), stored.absmax());
}

void compare_stored_low_rank(const golden_case& c, outcome& out, const any_matrix& stored) {
  const pesc::element_type type = c.file().get("dequant").dtype;
  if (type == pesc::element_type::bf16)
    out.exact("dequant", dequantized_as<pesc::bf16>(stored), c.floats("dequant"));
  if (type == pesc::element_type::f16)
    out.exact("dequant", dequantized_as<pesc::f16>(stored), c.floats("dequant"));
  if (type == pesc::element_type::f32)
    out.exact("dequant", dequantized_as<float>(stored), c.floats("dequant"));
}

}  // namespace golden
