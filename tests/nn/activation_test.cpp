// SPDX-License-Identifier: Apache-2.0
#include "pesc/nn/activation.hpp"

#include <doctest/doctest.h>

#include "support/reference_ops.hpp"

namespace {

using namespace pesc;
using reference::activation;

template <class A>
void check(activation kind) {
  for (double x = -12; x <= 12; x += 0.0625) {
    CAPTURE(x);
    const auto at = static_cast<float>(x);
    CHECK(std::fabs(static_cast<double>(A::value(at)) - reference::activate(kind, x)) < 2e-6);
    CHECK(std::fabs(static_cast<double>(A::derivative(at)) - reference::activation_derivative(kind, x)) <
          2e-6);
    // The derivative is that of the value, away from the kink of relu.
    if (x != 0) {
      const double slope = (reference::activate(kind, x + 1e-5) - reference::activate(kind, x - 1e-5)) / 2e-5;
      CHECK(static_cast<double>(A::derivative(at)) == doctest::Approx(slope).epsilon(1e-4).scale(1));
    }
  }
}

TEST_CASE("activations follow their formulas and derivatives their values") {
  check<silu>(activation::silu);
  check<gelu>(activation::gelu);
  check<gelu_tanh>(activation::gelu_tanh);
  check<relu>(activation::relu);
}

TEST_CASE("activations are finite for every finite input of common size") {
  for (const float x : {-1e4f, -100.0f, -88.7f, 88.7f, 100.0f, 1e4f}) {
    CAPTURE(x);
    CHECK(std::isfinite(silu::value(x)));
    CHECK(std::isfinite(silu::derivative(x)));
    CHECK(std::isfinite(gelu::value(x)));
    CHECK(std::isfinite(gelu::derivative(x)));
    CHECK(std::isfinite(gelu_tanh::value(x)));
    CHECK(std::isfinite(gelu_tanh::derivative(x)));
  }
}

struct no_activation {
  static double value(float) { return 0; }
};
static_assert(!Activation<no_activation>);

}  // namespace
