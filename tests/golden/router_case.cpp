// SPDX-License-Identifier: Apache-2.0

#include "router_case.hpp"

#include <functional>

namespace golden {
namespace {

/// \brief Rows where equal scores leave the order to the implementation: their gates are sorted, their
/// gradients dropped on both sides.
struct ambiguity {
  std::vector<std::uint8_t> rows;  ///< empty: none

  explicit ambiguity(const golden_case& c) {
    if (c.has("ambiguous")) rows = c.bytes("ambiguous");
  }

  template <class T>
  void each_row(std::vector<T>& values, void (*f)(T*, T*)) const {
    if (rows.empty()) return;
    const std::size_t width = values.size() / rows.size();
    for (std::size_t i = 0; i < rows.size(); ++i)
      if (rows[i] != 0) f(values.data() + i * width, values.data() + (i + 1) * width);
  }
  template <class T>
  void sort(std::vector<T>& values) const {
    each_row<T>(values, [](T* first, T* last) { std::sort(first, last, std::greater<T>{}); });
  }
  template <class T>
  void drop(std::vector<T>& values) const {
    each_row<T>(values, [](T* first, T* last) { std::fill(first, last, T{}); });
  }
};

}  // namespace

router_input::router_input(const golden_case& c, const char* weight_name) {
  const bool direct = c.has("logits");
  x = c.floats(direct ? "logits" : "input");
  shape.experts = c.integer("experts");
  shape.top_k = c.integer("top_k");
  hidden = c.shape(direct ? "logits" : "input").back();
  PESC_EXPECTS(hidden > 0 && shape.experts > 0 && shape.top_k >= 1 && shape.top_k <= shape.experts &&
                   shape.top_k <= pesc::max_top_k && shape.experts < 1 << 16,
               "router of ", shape.experts, " experts, top-k ", shape.top_k, ", ", hidden, " inputs");
  tokens = static_cast<index_t>(x.size()) / hidden;
  shape.hidden = hidden;
  if (!direct) {
    weight = c.floats(weight_name);
  } else {
    weight = zeros(shape.experts * hidden);
    for (index_t e = 0; e < std::min(shape.experts, hidden); ++e)
      weight[static_cast<std::size_t>(e * hidden + e)] = 1;
  }
}

double largest(const std::vector<float>& values) {
  double out = 0;
  for (const float v : values) out = std::fmax(out, std::fabs(static_cast<double>(v)));
  return out;
}

std::vector<float> upstream_gates(const golden_case& c, const router_input& in) {
  std::vector<float> out = c.floats("grad.weights");
  PESC_EXPECTS(static_cast<index_t>(out.size()) == in.tokens * in.shape.top_k, "grad.weights has ",
               out.size(), " values");
  return out;
}

void compare_router(const golden_case& c, outcome& out, router_result r, const std::string& where,
                    double single, double upstream) {
  const bool low = c.text("dtype") == "bfloat16";
  const double tolerance = low ? 4e-3 : single;
  const ambiguity unclear(c);
  std::vector<std::int64_t> experts = c.integers("expected.experts");
  std::vector<float> weights = c.floats("expected.weights");
  unclear.drop(r.experts);
  unclear.drop(experts);
  unclear.sort(r.gates);
  unclear.sort(weights);
  out.exact("experts" + where, r.experts, experts);
  out.near("weights" + where, r.gates, weights, tolerance);
  if (c.has("expected.logits")) out.near("logits" + where, r.logits, c.floats("expected.logits"), tolerance);
  // A gradient that vanishes in exact arithmetic is rounding of the upstream one on both sides.
  const double gradient_tolerance = low ? 1e-2 : single;
  if (c.has("expected.grad.logits")) {
    std::vector<float> expected = c.floats("expected.grad.logits");
    unclear.drop(expected);
    unclear.drop(r.dx);
    out.near("grad.logits" + where, r.dx, expected, gradient_tolerance, upstream);
  }
  if (c.has("expected.grad.input"))
    out.near("grad.input" + where, r.dx, c.floats("expected.grad.input"), gradient_tolerance, 0.1 * upstream);
  if (c.has("expected.grad.weight"))
    out.near("grad.weight" + where, r.dweight, c.floats("expected.grad.weight"), gradient_tolerance,
             0.1 * upstream);
}

}  // namespace golden
