// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <vector>

namespace support {

/// \brief Derivatives of `loss()` by each of `values`, which are moved one at a time and restored.
///
/// Central differences at h and 2h with the h^2 error cancelled. With h = 1e-3 truncation (h^4) and rounding
/// (1e-16 / h) both stay near 1e-12 for losses of order one, as long as no kink lies within 2h.
template <class Values, class Loss>
std::vector<double> central_differences(Values& values, const Loss& loss, double h = 1e-3) {
  std::vector<double> result;
  for (std::size_t i = 0; i < values.size(); ++i) {
    double& value = values.data()[i];
    const double kept = value;
    const auto at = [&](double moved) {
      value = moved;
      return loss();
    };
    const double narrow = (at(kept + h) - at(kept - h)) / (2 * h);
    const double wide = (at(kept + 2 * h) - at(kept - 2 * h)) / (4 * h);
    value = kept;
    result.push_back((4 * narrow - wide) / 3);
  }
  return result;
}

}  // namespace support
