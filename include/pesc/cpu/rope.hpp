// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>

#include "pesc/core/views.hpp"
#include "pesc/cpu/context.hpp"
#include "pesc/cpu/elementwise.hpp"
#include "pesc/nn/rope.hpp"

namespace pesc::cpu {
inline namespace PESC_CPU_ABI {

/// \brief Turns the pairs of every head of row t by positions[t] * inv_freq, in place.
///
/// `inv_freq` has head_dim / 2 elements, which gives the head size. `direction` is +1, or -1 for the inverse,
/// which is also the backward operation.
template <Executor E, IsaPolicy I>
void rope(context<E, I>& ctx, matrix_view<float> q, vector_view<const std::int32_t> positions,
          vector_view<const float> inv_freq, rope_pairing pairing, float direction) {
  PESC_ASSERT(positions.size == q.rows && (q.empty() || q.cols % (2 * inv_freq.size) == 0));
  const index_t half = inv_freq.size;
  const index_t heads = half == 0 ? 0 : q.cols / (2 * half);
  const bool neighbours = pairing == rope_pairing::neighbours;
  detail::for_rows(ctx, q.rows, 4 * q.cols, [&](index_t t) {
    constexpr index_t block = 64;
    float cosines[block];
    float sines[block];
    for (index_t first = 0; first < half; first += block) {
      const index_t count = std::min(block, half - first);
      for (index_t i = 0; i < count; ++i) {
        const float angle = static_cast<float>(positions[t]) * inv_freq[first + i];
        cosines[i] = std::cos(angle);
        sines[i] = direction * std::sin(angle);
      }
      for (index_t h = 0; h < heads; ++h) {
        float* head = q.row(t) + h * 2 * half;
        float* a = head + (neighbours ? 2 * first : first);
        float* b = neighbours ? a + 1 : a + half;
        const index_t step = neighbours ? 2 : 1;
        for (index_t i = 0; i < count; ++i) {
          const float u = a[i * step];
          const float v = b[i * step];
          a[i * step] = u * cosines[i] - v * sines[i];
          b[i * step] = v * cosines[i] + u * sines[i];
        }
      }
    }
  });
}

PESC_CPU_INSTANCE(void rope(context<>&, matrix_view<float>, vector_view<const std::int32_t>,
                            vector_view<const float>, rope_pairing, float))

}  // namespace PESC_CPU_ABI
}  // namespace pesc::cpu
