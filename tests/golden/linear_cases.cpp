// SPDX-License-Identifier: Apache-2.0

// Kinds linear4bit, linear4bit_state, lora_linear, qlora_linear: a frozen projection, alone and with a
// low-rank update.

#include "each_isa.hpp"
#include "pesc/io/safetensors_writer.hpp"
#include "pesc/model/quantized_tensors.hpp"
#include "pesc/pesc.hpp"
#include "projection_case.hpp"

namespace golden {
namespace {

using pesc::any_format;

/// \brief Tensor by tensor, and the list of names. The sign of the zero level is free.
void compare_files(outcome& out, const pesc::safetensors_file& actual,
                   const pesc::safetensors_file& expected) {
  index_t differing = actual.names() == expected.names() ? 0 : 1;
  for (const pesc::tensor_info& tensor : expected.tensors()) {
    const pesc::tensor_info* mine = actual.find(tensor.name);
    if (mine == nullptr || mine->dtype != tensor.dtype || mine->shape != tensor.shape) {
      ++differing;
    } else if (tensor.name.ends_with(".quant_map")) {
      out.exact("levels stored", pesc::to_floats(*mine, actual.name()),
                pesc::to_floats(tensor, expected.name()));
    } else if (!std::equal(mine->bytes.begin(), mine->bytes.end(), tensor.bytes.begin(),
                           tensor.bytes.end())) {
      ++differing;
    }
  }
  out.none("stored again", differing);
}

}  // namespace

void run_linear4bit(const golden_case& c, outcome& out) {
  const auto [rows, cols] = projection_sizes(c);
  any_matrix stored = stored_weight(c, format_of(c), rows, cols);
  compare_stored_linear(c, out, stored);
  const projection p = read_projection(c, std::move(stored));
  for_each_isa(
      [&](pesc::cpu_backend& ctx, const std::string& where) { compare_linear4bit(ctx, c, out, p, where); });
}

void run_linear4bit_state(const golden_case& c, outcome& out) {
  const auto [rows, cols] = projection_sizes(c);
  const pesc::format_info info = format_of(c);
  const std::string path = c.folder() + "/" + c.text("state_file");
  const pesc::safetensors_file file = pesc::safetensors_file::open(path);
  const std::string name = c.text("prefix") + "weight";
  const auto stored = pesc::read_quantized<any_format>(file, name, path);
  PESC_EXPECTS(stored.weight.rows() == rows && stored.weight.cols() == cols && stored.weight.format() == info,
               path, ": weight of ", stored.weight.rows(), " x ", stored.weight.cols(), ", expected ", rows,
               " x ", cols);
  out.exact("dequant.f32", dequantized_as<float>(stored.weight), c.floats("expected.dequant.f32"));
  const pesc::element_type type = c.file().get("expected.dequant").dtype;
  if (type == pesc::element_type::bf16)
    out.exact("dequant", dequantized_as<pesc::bf16>(stored.weight), c.floats("expected.dequant"));
  if (type == pesc::element_type::f16)
    out.exact("dequant", dequantized_as<pesc::f16>(stored.weight), c.floats("expected.dequant"));
  if (type == pesc::element_type::f32)
    out.exact("dequant", dequantized_as<float>(stored.weight), c.floats("expected.dequant"));

  // Written again, from the order of files and from that of the kernels, the file is the same to the byte.
  const auto packed = pesc::pack(stored.weight);
  const auto compare_writing = [&](const auto& weight) {
    pesc::safetensors_writer writer;
    pesc::add_weight(writer, name, weight, stored.form);
    const std::string bias = c.text("prefix") + "bias";
    if (const pesc::tensor_info* tensor = file.find(bias))
      writer.add(bias, tensor->dtype, tensor->shape, [tensor](pesc::byte_sink sink) { sink(tensor->bytes); });
    compare_files(out, pesc::safetensors_file::from_bytes("written", writer.to_bytes()), file);
  };
  compare_writing(stored.weight);
  compare_writing(packed);

  const float offset = stored.weight.offset();
  const std::vector<float> weight = c.floats("weight");
  out.exact("packed", pesc::quantize<any_format>(info, view(weight, rows, cols), &offset).codes(),
            stored.weight.codes());
}

void run_lora_linear(const golden_case& c, outcome& out) {
  const auto [rows, cols] = projection_sizes(c);
  const std::vector<float> weight = c.floats("weight");
  projection p = read_projection(
      c, pesc::quantize<any_format>(pesc::unquantized<float>::info(), view(weight, rows, cols)));
  for_each_isa([&](pesc::cpu_backend& ctx, const std::string& where) {
    const projection_result r = compare_low_rank(ctx, c, out, p, 1e-6, where);
    out.near("y, double" + where, r.y, c.doubles("expected64.y"), 1e-6);
    out.near("grad.input, double" + where, r.dx, c.doubles("expected64.grad.input"), 1e-6);
  });
  const double rank = static_cast<double>(p.rank);
  const double divisor = c.flag("rslora") ? std::sqrt(rank) : rank;
  out.near("scaling", std::vector<double>{c.number("alpha") / divisor},
           std::vector<double>{c.number("scaling")}, 1e-15);
  const pesc::lora_parameters<> lora{view(p.a, p.rank, cols), view(p.b, rows, p.rank)};
  std::vector<float> delta = zeros(rows * cols);
  std::vector<float> merged = weight;
  pesc::merge(lora, p.scale, view(delta, rows, cols));
  pesc::merge(lora, p.scale, view(merged, rows, cols));
  out.near("delta", delta, c.floats("expected.delta"), 1e-6);
  out.near("merged", merged, c.floats("expected.merged"), 1e-6);
}

void run_qlora_linear(const golden_case& c, outcome& out) {
  const auto [rows, cols] = projection_sizes(c);
  any_matrix stored = stored_weight(c, format_of(c), rows, cols);
  compare_stored_low_rank(c, out, stored);
  const projection p = read_projection(c, std::move(stored));
  const double tolerance = stored_tolerance(c, 2e-2, 1e-6);
  for_each_isa([&](pesc::cpu_backend& ctx, const std::string& where) {
    static_cast<void>(compare_low_rank(ctx, c, out, p, tolerance, where));
  });
}

}  // namespace golden
