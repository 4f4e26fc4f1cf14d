// SPDX-License-Identifier: Apache-2.0

// Kinds quant4 and quant8_blockwise: compared bit for bit.

#include "each_isa.hpp"
#include "pesc/cpu/quantize.hpp"
#include "pesc/cpu/transfer.hpp"
#include "quant_case.hpp"

namespace golden {
namespace {

using pesc::matrix_view;

/// \brief The format whose block and kind are compiled in must give the bytes of the dynamic one.
template <class Format, class T>
void compare_static(outcome& out, matrix_view<const T> weight, const any_matrix& expected) {
  const auto quantized = pesc::quantize<Format>(weight);
  out.exact("static codes", quantized.codes(), expected.codes());
  out.exact("static absmax", quantized.absmax(), expected.absmax());
}

/// \brief The kernels of every instruction set, from both orders.
template <pesc::Scalar T>
void compare_kernels(outcome& out, const any_matrix& stored) {
  const std::vector<T> expected = dequantized_as<T>(stored);
  const auto packed = pesc::pack(stored);
  for_each_isa([&](pesc::cpu_backend& ctx, const std::string& where) {
    compare_kernel(ctx, out, stored.view(), expected, "kernel dequant" + where);
    compare_kernel(ctx, out, packed.view(), expected, "kernel dequant of panels" + where);
  });
}

}  // namespace

void run_quant4(const golden_case& c, outcome& out) {
  const any_matrix stored = stored_quant4(c);
  const pesc::format_info& info = stored.format();
  out.exact("levels", info.levels, c.floats("expected.code"));
  with_elements(c, "input", [&]<class T>(const std::vector<T>& values) {
    const matrix_view<const T> weight(values.data(), stored.rows(), stored.cols());
    const auto quantize = [&](const pesc::format_info& format, const float* offset) {
      return pesc::quantize<pesc::any_format>(format, weight, offset);
    };
    compare_quantized(c, out, stored, quantize);
    if (info.scales != pesc::scale_kind::plain || info.block != 64) return;
    if (c.text("quant_type") == "nf4") compare_static<pesc::nf4<64>>(out, weight, quantize(info, nullptr));
    if (c.text("quant_type") == "fp4") compare_static<pesc::fp4<64>>(out, weight, quantize(info, nullptr));
  });
  compare_dequantized(c, out, stored);
  compare_unpacked(out, pesc::unpack(pesc::pack(stored)), stored);
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
