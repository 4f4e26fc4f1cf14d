// SPDX-License-Identifier: Apache-2.0

#include "switch_case.hpp"

namespace golden {
namespace {

/// \brief Sequences with a token whose two best probabilities are equal where the reference chooses, so that
/// the choice, and with it who is dropped, is open.
std::vector<char> open_sequences(const std::vector<float>& logits, index_t sequences, index_t length,
                                 index_t experts, bool low) {
  std::vector<char> open(static_cast<std::size_t>(sequences), 0);
  for (index_t t = 0; t < sequences * length; ++t) {
    const float* x = logits.data() + t * experts;
    const float top = *std::max_element(x, x + experts);
    double sum = 0;
    for (index_t e = 0; e < experts; ++e) sum += std::exp(static_cast<double>(x[e] - top));
    int best = 0;
    const auto stored = [&](float value) {
      const float p = static_cast<float>(std::exp(static_cast<double>(value - top)) / sum);
      return low ? pesc::to_float(pesc::to_bf16(p)) : p;
    };
    for (index_t e = 0; e < experts; ++e) best += stored(x[e]) == stored(top) ? 1 : 0;
    if (best > 1) open[static_cast<std::size_t>(t / length)] = 1;
  }
  return open;
}

}  // namespace

switch_input::switch_input(const golden_case& c)
    : router_input(c, "weight"),
      batch{c.integer("batch")},
      length{c.integer("seq")},
      low{c.text("dtype") == "bfloat16"},
      dgates{c.floats("grad.weights")} {
  PESC_EXPECTS(batch >= 1 && length >= 1 && batch * length == tokens, "logits of ", tokens,
               " tokens, expected ", batch, " x ", length);
  PESC_EXPECTS(static_cast<index_t>(dgates.size()) == tokens && hidden == shape.experts, "grad.weights has ",
               dgates.size(), " values");
  open = open_sequences(x, batch, length, shape.experts, low);
}

void compare_dispatch(const golden_case& c, outcome& out, const switch_input& in, const router_result& all,
                      const router_result& kept, const std::string& where) {
  const std::vector<std::int64_t> dispatch = c.integers("expected.dispatch");
  PESC_EXPECTS(static_cast<index_t>(dispatch.size()) == in.tokens * in.shape.experts,
               "expected.dispatch has ", dispatch.size(), " values");
  index_t wrong = 0;
  for (index_t t = 0; t < in.tokens; ++t) {
    if (in.open[static_cast<std::size_t>(t / in.length)] != 0) continue;
    const auto i = static_cast<std::size_t>(t);
    const bool dropped = kept.experts[i] == in.shape.experts;
    for (index_t e = 0; e < in.shape.experts; ++e) {
      const bool to_e = !dropped && kept.experts[i] == e;
      if (to_e != (dispatch[static_cast<std::size_t>(t * in.shape.experts + e)] != 0)) ++wrong;
    }
    if (kept.gates[i] != (dropped ? 0.0f : all.gates[i])) ++wrong;
  }
  out.none("dispatch" + where, wrong);
}

}  // namespace golden
