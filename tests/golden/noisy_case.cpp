// SPDX-License-Identifier: Apache-2.0

#include "noisy_case.hpp"

namespace golden {

void compare_noisy(const golden_case& c, outcome& out, const noisy_result& scores,
                   const noisy_result& balance, const std::string& where) {
  const double weight = c.number("balance_loss_weight");
  constexpr double tolerance = 1e-5;
  out.exact("experts" + where, scores.experts, c.integers("expected.experts"));
  out.near("weights" + where, scores.gates, c.floats("expected.weights"), tolerance);
  out.near("importance" + where, scores.importance, c.doubles("expected.importance"), tolerance);
  out.near("load" + where, scores.load, c.doubles("expected.load"), tolerance);
  // CV² of equal parts is zero in exact arithmetic: then the loss is rounding.
  out.near("balance_loss" + where, std::vector<double>{weight * scores.loss},
           c.doubles("expected.balance_loss"), tolerance, weight * 1e-2);
  const auto gradients = [&](const noisy_result& r, const std::string& what, double scale) {
    out.near(what + ".input" + where, r.dx, c.floats("expected." + what + ".input"), tolerance, scale);
    out.near(what + ".gate" + where, r.dweight, c.floats("expected." + what + ".gate"), tolerance, scale);
    if (c.has("expected." + what + ".noise"))
      out.near(what + ".noise" + where, r.dnoise, c.floats("expected." + what + ".noise"), tolerance, scale);
  };
  gradients(scores, "grad_scores", 0.1 * largest(c.floats("grad.weights")));
  gradients(balance, "grad_balance", 1e-2 * weight);
}

}  // namespace golden
