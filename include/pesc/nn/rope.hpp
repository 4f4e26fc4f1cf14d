// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "pesc/core/error.hpp"
#include "pesc/core/views.hpp"

namespace pesc {

/// \brief Which elements of a head turn together: (i, i + half) as in Hugging Face files, or (2i, 2i + 1).
enum class rope_pairing { halves, neighbours };

/// \brief How frequencies are stretched beyond the trained context.
enum class rope_scaling { none, linear, llama3 };

/// \brief Rotary embedding: angles are position * theta^(-2i / head_dim), scaled.
struct rope_options {
  rope_pairing pairing = rope_pairing::halves;
  rope_scaling scaling = rope_scaling::none;
  double theta = 10000.0;
  double factor = 1.0;                 ///< linear and llama3
  double low_frequency_factor = 1.0;   ///< llama3
  double high_frequency_factor = 4.0;  ///< llama3
  double original_positions = 8192.0;  ///< llama3: context length before the stretch
};

/// \brief Writes the angle per position of each pair, head_dim / 2 values.
///
/// llama3: wavelengths beyond `original_positions / low_frequency_factor` are stretched by `factor`, those below
/// `original_positions / high_frequency_factor` are kept, those between are blended.
inline void rope_frequencies(const rope_options& options, index_t head_dim, vector_view<float> out) {
  PESC_EXPECTS(head_dim > 0 && head_dim % 2 == 0, "rotary embedding needs an even head size, found ",
               head_dim);
  constexpr double two_pi = 6.283185307179586476925286766559;
  for (index_t i = 0; i < head_dim / 2; ++i) {
    double f = std::pow(options.theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
    if (options.scaling == rope_scaling::linear) f /= options.factor;
    if (options.scaling == rope_scaling::llama3) {
      const double wavelength = two_pi / f;
      const double low = options.original_positions / options.low_frequency_factor;
      const double high = options.original_positions / options.high_frequency_factor;
      if (wavelength > low) {
        f /= options.factor;
      } else if (wavelength >= high) {
        const double blend = (options.original_positions / wavelength - options.low_frequency_factor) /
                             (options.high_frequency_factor - options.low_frequency_factor);
        f = (1.0 - blend) * f / options.factor + blend * f;
      }
    }
    out[i] = static_cast<float>(f);
  }
}

}  // namespace pesc
