// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <utility>

#include "on_backend.hpp"
#include "pesc/nn/linear.hpp"
#include "quant_case.hpp"

namespace golden {

/// \brief A projection, its low-rank update (rank 0: none) and what goes in.
struct projection {
  any_matrix weight;
  std::vector<float> bias, a, b;
  index_t rank = 0;
  float scale = 1;
  std::vector<float> x, dy;

  [[nodiscard]] index_t in() const { return weight.cols(); }
  [[nodiscard]] index_t out() const { return weight.rows(); }
  [[nodiscard]] index_t tokens() const { return static_cast<index_t>(x.size()) / in(); }
};

/// \brief Sizes by the metadata, which must be sane and fit the tensors.
[[nodiscard]] projection read_projection(const golden_case& c, any_matrix weight);

/// \brief Rows and columns of a projection, by the metadata.
[[nodiscard]] std::pair<index_t, index_t> projection_sizes(const golden_case& c);

/// \brief Error of a result that is stored in 16 bits, from rounding weights, sums and the result; of one in
/// float, `single`.
[[nodiscard]] double stored_tolerance(const golden_case& c, double bf16, double single);

struct projection_result {
  std::vector<float> y, dx, da, db, dbias;
};

template <pesc::Compute C, class X>
[[nodiscard]] projection_result run_projection(X& ctx, const projection& p) {
  using space = typename X::memory_space;
  const auto weight = pack(ctx, p.weight.view());
  placed bias(ctx, p.bias), a(ctx, p.a), b(ctx, p.b), x(ctx, p.x), dy(ctx, p.dy);
  placed<X, float> y(ctx, p.tokens() * p.out()), dx(ctx, p.tokens() * p.in());
  placed<X, float> da(ctx, p.rank * p.in()), db(ctx, p.out() * p.rank), dbias(ctx, p.out());
  const pesc::frozen_linear<pesc::any_format, space> layer{weight.view(), bias.list()};
  pesc::lora_parameters<space> lora, gradient;
  if (p.rank > 0) {
    lora = {a.matrix(p.rank, p.in()), b.matrix(p.out(), p.rank)};
    gradient = {da.matrix(p.rank, p.in()), db.matrix(p.out(), p.rank)};
  }
  const pesc::lora_run options{.scale = p.scale};
  const auto input = pesc::as_const(x.matrix(p.tokens(), p.in()));
  const auto upstream = pesc::as_const(dy.matrix(p.tokens(), p.out()));
  with_workspace(ctx, [&](pesc::workspace<space>& ws) {
    const auto state = pesc::linear_state<space>::carve(ws, p.tokens(), p.rank);
    pesc::linear_forward<C>(ctx, input, layer, lora, options, y.matrix(p.tokens(), p.out()), state, ws);
    pesc::linear_backward<C>(ctx, input, layer, lora, options, upstream, dx.matrix(p.tokens(), p.in()), false,
                             gradient, state, ws);
  });
  column_sum(ctx, upstream, dbias.list());
  return {y.values(), dx.values(), da.values(), db.values(), dbias.values()};
}

/// \brief Kind linear4bit on a backend.
template <class X>
void compare_linear4bit(X& ctx, const golden_case& c, outcome& out, const projection& p,
                        const std::string& where) {
  const double single = product_tolerance<X>(1e-6);
  const double tolerance = stored_tolerance(c, 1e-2, single);
  const auto compare = [&](const projection_result& r, const std::string& name, double exact_tolerance) {
    out.near("y" + name, r.y, c.floats("expected.y"), tolerance);
    out.near("grad.x" + name, r.dx, c.floats("expected.grad.x"), tolerance);
    // Sums in float of the same numbers: exact but for the rounding of the result.
    if (c.has("expected.grad.bias"))
      out.near("grad.bias" + name, r.dbias, c.floats("expected.grad.bias"), stored_tolerance(c, 1e-2, 1e-6));
    out.near("y, double" + name, r.y, c.doubles("expected64.y"), exact_tolerance);
    out.near("grad.x, double" + name, r.dx, c.doubles("expected64.grad.x"), exact_tolerance);
  };
  // Products in float of 16-bit numbers meet the reference's run in double.
  compare(run_projection<float>(ctx, p), where, single);
  if (c.text("dtype") == "bfloat16") compare(run_projection<pesc::bf16>(ctx, p), where + " bf16", tolerance);
}

/// \brief Kinds lora_linear and qlora_linear on a backend.
template <class X>
[[nodiscard]] projection_result compare_low_rank(X& ctx, const golden_case& c, outcome& out,
                                                 const projection& p, double tolerance,
                                                 const std::string& where) {
  const projection_result r = run_projection<float>(ctx, p);
  out.near("y" + where, r.y, c.floats("expected.y"), tolerance);
  out.near("grad.input" + where, r.dx, c.floats("expected.grad.input"), tolerance);
  out.near("grad.lora_A" + where, r.da, c.floats("expected.grad.lora_A"), tolerance);
  out.near("grad.lora_B" + where, r.db, c.floats("expected.grad.lora_B"), tolerance);
  return r;
}

/// \brief What the library reads in the bytes of a linear4bit case, and what it quantises itself.
void compare_stored_linear(const golden_case& c, outcome& out, const any_matrix& stored);

/// \brief What the library reads in the bytes of a qlora_linear case.
void compare_stored_low_rank(const golden_case& c, outcome& out, const any_matrix& stored);

}  // namespace golden
