// SPDX-License-Identifier: Apache-2.0

#include "quant_case.hpp"

#include <bit>

namespace golden {
namespace {

/// \brief Distance of two positive floats in units of the last place.
double ulps(float a, float b) {
  return std::fabs(static_cast<double>(std::bit_cast<std::int32_t>(a)) -
                   static_cast<double>(std::bit_cast<std::int32_t>(b)));
}

}  // namespace

index_t differing_codes(const std::uint8_t* actual, const std::vector<std::uint8_t>& expected,
                        const float* scaled, const std::vector<float>& map) {
  index_t count = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (actual[i] == expected[i]) continue;
    const float here = std::fabs(scaled[i] - map[actual[i]]);
    const float there = std::fabs(scaled[i] - map[expected[i]]);
    const float midpoint = (map[actual[i]] + map[expected[i]]) * 0.5f;
    if (here != there && scaled[i] != midpoint) ++count;
  }
  return count;
}

std::vector<float> scaled_by_block(const std::vector<float>& values, float offset, index_t block) {
  std::vector<float> out(values.size());
  const index_t n = static_cast<index_t>(values.size());
  for (index_t begin = 0; begin < n; begin += block) {
    const index_t end = std::min(begin + block, n);
    float largest = 0;
    for (index_t i = begin; i < end; ++i)
      largest = std::max(largest, std::fabs(values[static_cast<std::size_t>(i)] - offset));
    const pesc::detail::block_divisor scale(largest, end - begin == block);
    for (index_t i = begin; i < end; ++i)
      out[static_cast<std::size_t>(i)] = scale(values[static_cast<std::size_t>(i)] - offset);
  }
  return out;
}

any_matrix stored_quant4(const golden_case& c) {
  const std::vector<index_t>& shape = c.shape("input");
  const index_t cols = shape.empty() ? 1 : shape.back();
  const index_t rows = cols == 0 ? 0 : c.file().get("input").count() / cols;
  return stored_weight(c, format_of(c), rows, cols,
                       {"expected.packed", "expected.absmax", "expected.nested_absmax",
                        "expected.nested_code", "expected.offset"});
}

void compare_dequantized(const golden_case& c, outcome& out, const any_matrix& stored) {
  if (c.has("expected.dequant.f32"))
    out.exact("dequant.f32", dequantized_as<float>(stored), c.file().read<float>("expected.dequant.f32"));
  if (c.has("expected.dequant.bf16"))
    out.exact("dequant.bf16", dequantized_as<pesc::bf16>(stored),
              c.file().read<pesc::bf16>("expected.dequant.bf16"));
  if (c.has("expected.dequant.f16"))
    out.exact("dequant.f16", dequantized_as<pesc::f16>(stored),
              c.file().read<pesc::f16>("expected.dequant.f16"));
}

void compare_nested(const golden_case& c, outcome& out, const any_matrix& quantized, const any_matrix& plain,
                    const any_matrix& stored, float computed_offset) {
  const std::vector<float> absmax = c.floats("expected.absmax_f32");
  const std::vector<float> map = c.floats("expected.nested_code");
  const float offset = c.floats("expected.offset").at(0);
  out.near("offset in ulp", std::vector<double>{ulps(computed_offset, offset)}, std::vector<double>{0}, 1);
  out.exact("absmax before", plain.absmax(), absmax);
  out.exact("nested map", quantized.map(), map);
  // The reference's own kernel stores 0 for a block of zeros, its portable rule the smallest divisor.
  std::vector<float> nested(quantized.nested_absmax().begin(), quantized.nested_absmax().end());
  for (float& value : nested)
    if (value <= pesc::detail::least_absmax) value = 0;
  out.exact("nested absmax", nested, c.floats("expected.nested_absmax"));
  const std::vector<float> scaled = scaled_by_block(absmax, offset, pesc::nested_block);
  const std::vector<std::uint8_t> codes = c.bytes("portable.absmax");
  PESC_EXPECTS(
      codes.size() == absmax.size() && quantized.scale_codes().size == static_cast<index_t>(codes.size()),
      "portable.absmax has ", codes.size(), " codes, expected ", quantized.scale_codes().size);
  out.none("absmax codes", differing_codes(quantized.scale_codes().data, codes, scaled.data(), map));
  std::vector<float> restored(absmax.size());
  for (std::size_t b = 0; b < restored.size(); ++b)
    restored[b] =
        pesc::decode_scale(pesc::scale_kind::double_quant, stored.view().scales, static_cast<index_t>(b));
  out.exact("absmax restored", restored, c.floats("expected.absmax_restored"));
}

void compare_unpacked(outcome& out, const any_matrix& back, const any_matrix& stored) {
  out.exact("unpacked codes", back.codes(), stored.codes());
  out.exact("unpacked absmax", back.absmax(), stored.absmax());
  out.exact("unpacked scale codes", back.scale_codes(), stored.scale_codes());
}

}  // namespace golden
