// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <concepts>

#include "pesc/core/macros.hpp"

namespace pesc {

/// \brief An elementwise function with its derivative; a tag type, found by its name in kernels.
template <class A>
concept Activation = requires(float x) {
  { A::value(x) } -> std::same_as<float>;
  { A::derivative(x) } -> std::same_as<float>;
};

/// \brief x * sigmoid(x), the gate of SwiGLU (Shazeer, 2020).
struct silu {
  PESC_HOST_DEVICE static float value(float x) { return x / (1.0f + std::exp(-x)); }
  PESC_HOST_DEVICE static float derivative(float x) {
    const float q = 1.0f / (1.0f + std::exp(-x));
    return q * (1.0f + x * (1.0f - q));
  }
};

/// \brief x * Phi(x) with the exact normal distribution, as PESC adapters use it.
struct gelu {
  PESC_HOST_DEVICE static float value(float x) {
    return 0.5f * x * (1.0f + std::erf(x * 0.70710678118654752f));
  }
  PESC_HOST_DEVICE static float derivative(float x) {
    const float phi = 0.39894228040143268f * std::exp(-0.5f * x * x);
    return 0.5f * (1.0f + std::erf(x * 0.70710678118654752f)) + x * phi;
  }
};

/// \brief The approximation of `gelu` by tanh that some checkpoints were trained with.
struct gelu_tanh {
  PESC_HOST_DEVICE static float value(float x) {
    return 0.5f * x * (1.0f + std::tanh(0.79788456080286536f * (x + 0.044715f * x * x * x)));
  }
  PESC_HOST_DEVICE static float derivative(float x) {
    const float t = std::tanh(0.79788456080286536f * (x + 0.044715f * x * x * x));
    return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * 0.79788456080286536f * (1.0f + 0.134145f * x * x);
  }
};

/// \brief max(x, 0).
struct relu {
  PESC_HOST_DEVICE static float value(float x) { return x > 0.0f ? x : 0.0f; }
  PESC_HOST_DEVICE static float derivative(float x) { return x > 0.0f ? 1.0f : 0.0f; }
};

static_assert(Activation<silu> && Activation<gelu> && Activation<gelu_tanh> && Activation<relu>);

}  // namespace pesc
