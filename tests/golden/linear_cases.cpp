// SPDX-License-Identifier: Apache-2.0

// Kinds linear4bit, linear4bit_state, lora_linear, qlora_linear: a frozen projection, alone and with a
// low-rank update.

#include "pesc/io/safetensors_writer.hpp"
#include "pesc/model/quantized_tensors.hpp"
#include "pesc/nn/linear.hpp"
#include "pesc/pesc.hpp"
#include "pesc/quant/unquantized.hpp"
#include "quant_cases.hpp"

namespace golden {
namespace {

using pesc::any_format;
using pesc::as_const;
using pesc::matrix_view;
using packed_matrix = pesc::quantized_matrix<any_format, pesc::panels>;

/// \brief A projection, its low-rank update (rank 0: none) and what goes in.
struct projection {
  packed_matrix weight;
  std::vector<float> bias, a, b;
  index_t rank = 0;
  float scale = 1;
  std::vector<float> x, dy;

  [[nodiscard]] index_t in() const { return weight.cols(); }
  [[nodiscard]] index_t out() const { return weight.rows(); }
  [[nodiscard]] index_t tokens() const { return static_cast<index_t>(x.size()) / in(); }
};

struct projection_result {
  std::vector<float> y, dx, da, db, dbias;
};

/// \brief Sizes by the metadata, which must be sane and fit the tensors.
projection read_projection(const golden_case& c, packed_matrix weight) {
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

std::pair<index_t, index_t> sizes_of(const golden_case& c) {
  const index_t rows = c.integer("out_features");
  const index_t cols = c.integer("in_features");
  PESC_EXPECTS(rows > 0 && cols > 0 && rows < 1 << 20 && cols < 1 << 20, "projection of ", rows, " x ", cols);
  return {rows, cols};
}

template <pesc::Compute C>
projection_result run(pesc::cpu_backend& ctx, projection& p) {
  projection_result r;
  r.y = zeros(p.tokens() * p.out());
  r.dx = zeros(p.tokens() * p.in());
  r.da = zeros(p.rank * p.in());
  r.db = zeros(p.out() * p.rank);
  r.dbias = zeros(p.out());
  const pesc::frozen_linear<any_format> layer{p.weight.view(), view(std::as_const(p.bias))};
  pesc::lora_parameters<> lora, gradient;
  if (p.rank > 0) {
    lora = {view(p.a, p.rank, p.in()), view(p.b, p.out(), p.rank)};
    gradient = {view(r.da, p.rank, p.in()), view(r.db, p.out(), p.rank)};
  }
  const pesc::lora_run options{.scale = p.scale};
  const auto x = view(std::as_const(p.x), p.tokens(), p.in());
  const auto dy = view(std::as_const(p.dy), p.tokens(), p.out());
  with_workspace([&](pesc::workspace<>& ws) {
    const auto state = pesc::linear_state<>::carve(ws, p.tokens(), p.rank);
    pesc::linear_forward<C>(ctx, x, layer, lora, options, view(r.y, p.tokens(), p.out()), state, ws);
    pesc::linear_backward<C>(ctx, x, layer, lora, options, dy, view(r.dx, p.tokens(), p.in()), false,
                             gradient, state, ws);
  });
  column_sum(ctx, dy, view(r.dbias));
  return r;
}

/// \brief Error of a result that is stored in 16 bits, from rounding weights, sums and the result.
double tolerance_of(const golden_case& c, double bf16) {
  const std::string& dtype = c.text("dtype");
  return dtype == "bfloat16" ? bf16 : dtype == "float16" ? 2e-3 : 1e-6;
}

void compare_stored(outcome& out, const any_matrix& stored, const std::vector<float>& dequantized) {
  out.exact("dequant.f32", dequantized_as<float>(stored), dequantized);
}

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
  const auto [rows, cols] = sizes_of(c);
  const pesc::format_info info = format_of(c);
  const any_matrix stored = stored_weight(c, info, rows, cols);
  compare_stored(out, stored, c.floats("dequant.f32"));
  const float offset = stored.offset();
  const std::vector<float> weight = c.floats("weight");
  const any_matrix quantized = pesc::quantize<any_format>(info, view(weight, rows, cols), &offset);
  out.exact("packed", quantized.codes(), stored.codes());
  if (info.scales == pesc::scale_kind::plain) out.exact("absmax", quantized.absmax(), stored.absmax());

  projection p = read_projection(c, pesc::pack(stored));
  const double tolerance = tolerance_of(c, 1e-2);
  for_each_isa([&](pesc::cpu_backend& ctx, const std::string& where) {
    const auto compare = [&](const projection_result& r, const std::string& name, double exact_tolerance) {
      out.near("y" + name, r.y, c.floats("expected.y"), tolerance);
      out.near("grad.x" + name, r.dx, c.floats("expected.grad.x"), tolerance);
      // Sums in float of the same numbers: exact but for the rounding of the result.
      if (c.has("expected.grad.bias"))
        out.near("grad.bias" + name, r.dbias, c.floats("expected.grad.bias"), tolerance);
      out.near("y, double" + name, r.y, c.doubles("expected64.y"), exact_tolerance);
      out.near("grad.x, double" + name, r.dx, c.doubles("expected64.grad.x"), exact_tolerance);
    };
    // Products in float of 16-bit numbers meet the reference's run in double.
    compare(run<float>(ctx, p), where, 1e-6);
    if (c.text("dtype") == "bfloat16") compare(run<pesc::bf16>(ctx, p), where + " bf16", tolerance);
  });
}

void run_linear4bit_state(const golden_case& c, outcome& out) {
  const auto [rows, cols] = sizes_of(c);
  const pesc::format_info info = format_of(c);
  const std::string path = c.folder() + "/" + c.text("state_file");
  const pesc::safetensors_file file = pesc::safetensors_file::open(path);
  const std::string name = c.text("prefix") + "weight";
  const auto stored = pesc::read_quantized<any_format>(file, name, path);
  PESC_EXPECTS(stored.weight.rows() == rows && stored.weight.cols() == cols && stored.weight.format() == info,
               path, ": weight of ", stored.weight.rows(), " x ", stored.weight.cols(), ", expected ", rows,
               " x ", cols);
  compare_stored(out, stored.weight, c.floats("expected.dequant.f32"));
  const pesc::element_type type = c.file().get("expected.dequant").dtype;
  if (type == pesc::element_type::bf16)
    out.exact("dequant", dequantized_as<pesc::bf16>(stored.weight), c.floats("expected.dequant"));
  if (type == pesc::element_type::f16)
    out.exact("dequant", dequantized_as<pesc::f16>(stored.weight), c.floats("expected.dequant"));
  if (type == pesc::element_type::f32)
    out.exact("dequant", dequantized_as<float>(stored.weight), c.floats("expected.dequant"));

  // Written again, from the order of files and from that of the kernels, the file is the same to the byte.
  const packed_matrix packed = pesc::pack(stored.weight);
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
  const auto [rows, cols] = sizes_of(c);
  const std::vector<float> weight = c.floats("weight");
  const auto dense = view(weight, rows, cols);
  projection p =
      read_projection(c, pesc::pack(pesc::quantize<any_format>(pesc::unquantized<float>::info(), dense)));
  for_each_isa([&](pesc::cpu_backend& ctx, const std::string& where) {
    const projection_result r = run<float>(ctx, p);
    out.near("y" + where, r.y, c.floats("expected.y"), 1e-6);
    out.near("grad.input" + where, r.dx, c.floats("expected.grad.input"), 1e-6);
    out.near("grad.lora_A" + where, r.da, c.floats("expected.grad.lora_A"), 1e-6);
    out.near("grad.lora_B" + where, r.db, c.floats("expected.grad.lora_B"), 1e-6);
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
  const auto [rows, cols] = sizes_of(c);
  const any_matrix stored = stored_weight(c, format_of(c), rows, cols);
  const pesc::element_type type = c.file().get("dequant").dtype;
  if (type == pesc::element_type::bf16)
    out.exact("dequant", dequantized_as<pesc::bf16>(stored), c.floats("dequant"));
  if (type == pesc::element_type::f16)
    out.exact("dequant", dequantized_as<pesc::f16>(stored), c.floats("dequant"));
  if (type == pesc::element_type::f32)
    out.exact("dequant", dequantized_as<float>(stored), c.floats("dequant"));
  projection p = read_projection(c, pesc::pack(stored));
  const double tolerance = tolerance_of(c, 2e-2);
  for_each_isa([&](pesc::cpu_backend& ctx, const std::string& where) {
    const projection_result r = run<float>(ctx, p);
    out.near("y" + where, r.y, c.floats("expected.y"), tolerance);
    out.near("grad.input" + where, r.dx, c.floats("expected.grad.input"), tolerance);
    out.near("grad.lora_A" + where, r.da, c.floats("expected.grad.lora_A"), tolerance);
    out.near("grad.lora_B" + where, r.db, c.floats("expected.grad.lora_B"), tolerance);
  });
}

}  // namespace golden
