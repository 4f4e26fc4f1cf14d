// SPDX-License-Identifier: Apache-2.0

// Kinds quant4, quant8_blockwise, linear4bit_state: all compared bit for bit.

#include "quant_cases.hpp"

#include <bit>

#include "pesc/cpu/quantize.hpp"

namespace golden {
namespace {

using pesc::matrix_view;

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

/// \brief `values - offset` over the maximum of their blocks, as the quantiser sees them.
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

/// \brief Distance of two positive floats in units of the last place.
double ulps(float a, float b) {
  return std::fabs(static_cast<double>(std::bit_cast<std::int32_t>(a)) -
                   static_cast<double>(std::bit_cast<std::int32_t>(b)));
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

/// \brief The bytes must come back from the kernels' layout.
void compare_packing(outcome& out, const any_matrix& stored) {
  const any_matrix back = pesc::unpack(pesc::pack(stored));
  out.exact("unpacked codes", back.codes(), stored.codes());
  out.exact("unpacked absmax", back.absmax(), stored.absmax());
  out.exact("unpacked scale codes", back.scale_codes(), stored.scale_codes());
}

/// \brief The kernels of every instruction set give the bits of the plain loop, from both layouts.
template <pesc::Scalar T>
void compare_kernels(outcome& out, const any_matrix& stored) {
  const std::vector<T> expected = dequantized_as<T>(stored);
  const auto packed = pesc::pack(stored);
  for_each_isa([&](pesc::cpu_backend& ctx, const std::string& where) {
    std::vector<T> actual(expected.size());
    const matrix_view<T> to(actual.data(), stored.rows(), stored.cols());
    dequantize(ctx, stored.view(), to);
    out.exact("kernel dequant" + where, actual, expected);
    std::fill(actual.begin(), actual.end(), T{});
    dequantize(ctx, packed.view(), to);
    out.exact("kernel dequant of panels" + where, actual, expected);
  });
}

/// \brief The format whose block and kind are compiled in must give the bytes of the dynamic one.
template <class Format, class T>
void compare_static(outcome& out, matrix_view<const T> weight, const any_matrix& expected) {
  const auto quantized = pesc::quantize<Format>(weight);
  out.exact("static codes", quantized.codes(), expected.codes());
  out.exact("static absmax", quantized.absmax(), expected.absmax());
}

}  // namespace

void run_quant4(const golden_case& c, outcome& out) {
  const pesc::format_info info = format_of(c);
  const std::vector<index_t>& shape = c.shape("input");
  const index_t cols = shape.empty() ? 1 : shape.back();
  const index_t rows = cols == 0 ? 0 : c.file().get("input").count() / cols;
  out.exact("levels", info.levels, c.floats("expected.code"));
  const any_matrix stored = stored_weight(c, info, rows, cols,
                                          {"expected.packed", "expected.absmax", "expected.nested_absmax",
                                           "expected.nested_code", "expected.offset"});
  with_elements(c, "input", [&]<class T>(const std::vector<T>& values) {
    const matrix_view<const T> weight(values.data(), rows, cols);
    if (info.scales == pesc::scale_kind::plain) {
      const any_matrix quantized = pesc::quantize<pesc::any_format>(info, weight);
      out.exact("packed", quantized.codes(), stored.codes());
      out.exact("absmax", quantized.absmax(), stored.absmax());
      const bool nf4 = c.text("quant_type") == "nf4";
      if (info.block == 64 && nf4) compare_static<pesc::nf4<64>>(out, weight, quantized);
      if (info.block == 64 && !nf4) compare_static<pesc::fp4<64>>(out, weight, quantized);
      return;
    }
    pesc::format_info plain_info = info;
    plain_info.scales = pesc::scale_kind::plain;
    const any_matrix plain = pesc::quantize<pesc::any_format>(plain_info, weight);
    const float offset = stored.offset();
    const any_matrix quantized = pesc::quantize<pesc::any_format>(info, weight, &offset);
    out.exact("packed", quantized.codes(), stored.codes());
    compare_nested(c, out, quantized, plain, stored, pesc::quantize<pesc::any_format>(info, weight).offset());
  });
  compare_dequantized(c, out, stored);
  compare_packing(out, stored);
  compare_kernels<float>(out, stored);
  compare_kernels<pesc::bf16>(out, stored);
  compare_kernels<pesc::f16>(out, stored);
}

void run_quant8_blockwise(const golden_case& c, outcome& out) {
  const std::vector<float> values = c.floats("input");
  const std::vector<float> map = c.floats("code");
  PESC_EXPECTS(map.size() == 256, "map of ", map.size(), " entries, expected 256");
  const index_t block = c.integer("blocksize");
  PESC_EXPECTS(block >= 1, "block of ", block);
  const index_t n = static_cast<index_t>(values.size());
  PESC_EXPECTS(c.bytes("portable.q").size() == values.size(), "portable.q has ", c.bytes("portable.q").size(),
               " codes, expected ", n);
  std::vector<float> absmax = zeros(pesc::ceil_div(n, block));
  std::vector<std::uint8_t> codes(values.size());
  pesc::quantize_to_map(values.data(), n, block, 0.0f, map.data(), absmax.data(), codes.data());
  if (c.flag("signed", true)) out.exact("map", pesc::dynamic_map(), map);
  out.exact("absmax", absmax, c.floats("portable.absmax"));
  const std::vector<float> scaled = scaled_by_block(values, 0.0f, block);
  out.none("codes", differing_codes(codes.data(), c.bytes("portable.q"), scaled.data(), map));

  // Given codes decode to exact values, whoever made them.
  const auto decoded = [&](const std::string& prefix) {
    const std::vector<std::uint8_t> q = c.bytes(prefix + ".q");
    const std::vector<float> scales = c.floats(prefix + ".absmax");
    std::vector<float> result(q.size());
    for (std::size_t i = 0; i < q.size(); ++i)
      result[i] = pesc::nested_scale(map[q[i]], scales.at(i / static_cast<std::size_t>(block)), 0.0f);
    return result;
  };
  out.exact("dequant portable", decoded("portable"), c.floats("portable.dequant.f32"));
  const std::vector<float> native = decoded("expected");
  out.exact("dequant.f32", native, c.floats("expected.dequant.f32"));
  std::vector<pesc::bf16> brain(native.size());
  std::vector<pesc::f16> half(native.size());
  for (std::size_t i = 0; i < native.size(); ++i) {
    brain[i] = pesc::to_bf16(native[i]);
    half[i] = pesc::to_f16(native[i]);
  }
  if (c.has("expected.dequant.bf16")) out.exact("dequant.bf16", brain, c.floats("expected.dequant.bf16"));
  if (c.has("expected.dequant.f16")) out.exact("dequant.f16", half, c.floats("expected.dequant.f16"));
}

}  // namespace golden
