// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "pesc/core/error.hpp"
#include "pesc/core/random.hpp"
#include "pesc/core/views.hpp"

namespace pesc {

/// \brief How the next token is drawn.
struct sampling_options {
  double temperature = 0.0;  ///< 0: always the most likely token
  index_t top_k = 0;         ///< only this many most likely tokens; 0: all
  double top_p = 1.0;        ///< only the most likely tokens that together have this probability
  std::uint64_t seed = 0;

  /// \throws shape_error naming the option that is out of range
  void check() const {
    PESC_EXPECTS(std::isfinite(temperature) && temperature >= 0.0 && temperature <= 100.0, "temperature ",
                 temperature, ": must be 0 to 100");
    PESC_EXPECTS(top_k >= 0, "top-k of ", top_k, " tokens: must be 0 (all) or positive");
    PESC_EXPECTS(top_p > 0.0 && top_p <= 1.0, "top-p ", top_p, ": must be above 0 and at most 1");
  }
};

/// \brief Draws tokens; holds its scratch, so a draw allocates nothing after the first.
class sampler {
 public:
  /// \throws shape_error when an option is out of range
  explicit sampler(const sampling_options& options) : options_{options} { options_.check(); }

  /// \brief The next token. Equal probabilities go to the lower id; the draw depends on seed and `position` only.
  ///
  /// \throws numeric_error when no logit is finite
  [[nodiscard]] std::int32_t draw(vector_view<const float> logits, index_t position) {
    const index_t n = logits.size;
    index_t best = -1;
    for (index_t i = 0; i < n; ++i)
      if (logits[i] == logits[i] && (best < 0 || logits[i] > logits[best])) best = i;
    if (best < 0 || !(logits[best] < HUGE_VALF) || logits[best] == -HUGE_VALF)
      detail::raise<numeric_error>(detail::concat("logits of token ", position, " are not finite"));
    if (options_.temperature == 0.0) return static_cast<std::int32_t>(best);
    order_.resize(static_cast<std::size_t>(n));
    weight_.resize(static_cast<std::size_t>(n));
    std::iota(order_.begin(), order_.end(), 0);
    const auto likelier = [&](std::int32_t a, std::int32_t b) {
      const float x = logits[a] == logits[a] ? logits[a] : -HUGE_VALF;
      const float y = logits[b] == logits[b] ? logits[b] : -HUGE_VALF;
      return x > y || (x == y && a < b);
    };
    std::sort(order_.begin(), order_.end(), likelier);
    std::size_t kept =
        options_.top_k > 0 ? static_cast<std::size_t>(std::min(options_.top_k, n)) : order_.size();
    double total = 0.0;
    for (std::size_t i = 0; i < kept; ++i) {
      const float logit = logits[order_[i]];
      const double distance = static_cast<double>(logit) - static_cast<double>(logits[best]);
      weight_[i] = logit == logit ? std::exp(distance / options_.temperature) : 0.0;
      total += weight_[i];
    }
    kept = nucleus(kept, total);
    total = std::accumulate(weight_.begin(), weight_.begin() + static_cast<std::ptrdiff_t>(kept), 0.0);
    const random_stream stream{.seed = options_.seed, .site = random_site::sampling};
    double target = total * static_cast<double>(stream.uniform(static_cast<std::uint32_t>(position), 0));
    for (std::size_t i = 0; i + 1 < kept; ++i) {
      target -= weight_[i];
      if (target < 0.0) return order_[i];
    }
    return order_[kept - 1];
  }

 private:
  /// \brief How many of the likeliest tokens reach the probability `top_p`.
  [[nodiscard]] std::size_t nucleus(std::size_t kept, double total) const {
    double sum = 0.0;
    for (std::size_t i = 0; i < kept; ++i) {
      sum += weight_[i];
      if (sum >= options_.top_p * total) return i + 1;
    }
    return kept;
  }

  sampling_options options_;
  std::vector<std::int32_t> order_;
  std::vector<double> weight_;
};

}  // namespace pesc
