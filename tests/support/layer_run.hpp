// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "pesc/moe/layer.hpp"
#include "support/random.hpp"

namespace support {

/// \brief Fills every trainable tensor with small normal numbers, so that no gradient is zero by construction.
template <class Trainables>
void fill_trainables(const Trainables& p, std::uint64_t seed, double deviation = 0.2) {
  p.for_each([&](const std::string&, pesc::batch_view<float> tensor) {
    const std::vector<float> values = normal_floats(tensor.size(), ++seed, deviation);
    std::copy(values.begin(), values.end(), tensor.data);
  });
}

/// \brief Input, output and gradients of one caller of a layer whose rows are float.
template <class Layer>
struct layer_run {
  using config = typename Layer::config;
  using index_t = pesc::index_t;

  index_t tokens, hidden;
  std::vector<float> x, dy, y, dx;
  pesc::owned_parameters<config> gradients;

  layer_run(const Layer& layer, index_t token_count, std::uint64_t seed = 1)
      : tokens{token_count},
        hidden{layer.shape().hidden},
        x(normal_floats(tokens * hidden, seed)),
        dy(normal_floats(tokens * hidden, seed + 1000)),
        y(x.size(), -1.0f),
        dx(x.size(), -1.0f),
        gradients(layer.make_gradients()) {}

  [[nodiscard]] pesc::matrix_view<float> rows(std::vector<float>& list) const {
    return {list.data(), tokens, hidden};
  }
  [[nodiscard]] pesc::matrix_view<const float> rows(const std::vector<float>& list) const {
    return {list.data(), tokens, hidden};
  }

  void forward(typename Layer::backend& ctx, const Layer& layer, typename Layer::buffers& b,
               const pesc::moe_run& run = {}) {
    layer.forward(ctx, rows(std::as_const(x)), rows(y), b, run);
  }
  void backward(typename Layer::backend& ctx, const Layer& layer, typename Layer::buffers& b,
                const pesc::balance_gradient<>& balance = {}) {
    layer.backward(ctx, rows(std::as_const(dy)), rows(dx), gradients, b, balance);
  }

  /// \brief y, dx and all gradients behind one another.
  [[nodiscard]] std::vector<float> results() const {
    std::vector<float> out = y;
    out.insert(out.end(), dx.begin(), dx.end());
    out.insert(out.end(), gradients.arena().begin(), gradients.arena().end());
    return out;
  }
};

/// \brief Whether two lists hold the same bits; 0 and -0 differ, a NaN equals itself.
template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

}  // namespace support
