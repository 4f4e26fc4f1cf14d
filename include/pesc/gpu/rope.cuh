// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/gpu/detail/rope_kernels.cuh"
#include "pesc/gpu/elementwise.cuh"

namespace pesc::gpu {
namespace detail {

template <bool Neighbours>
void launch_rope(context& ctx, device_matrix<float> q, device_vector<const std::int32_t> positions,
                 device_vector<const float> inv_freq, float direction) {
  const index_t half = inv_freq.size;
  with_width<4>(
      [&](auto width) {
        constexpr int pairs = Neighbours ? (width() == 1 ? 1 : width() / 2) : width();
        constexpr unsigned threads = 256;
        unsigned x = 1;
        while (x < threads && x * pairs < half) x *= 2;
        const auto heads = static_cast<unsigned>(std::min<index_t>(threads / x, q.cols / (2 * half)));
        launch_shape shape = grid_1d(q.rows, 1);
        shape.block = dim3(x, heads);
        shape.shared_bytes = 2 * half * index_t{sizeof(float)};
        launch(ctx, "rope_kernel", rope_kernel<Neighbours, width()>, shape, q, positions.data, inv_freq.data,
               half, direction);
      },
      q, device_matrix<float>(q.data, 1, Neighbours ? 2 * half : half));
}

}  // namespace detail

/// \brief Turns the pairs of every head of row t by positions[t] * inv_freq, in place.
///
/// `inv_freq` has head_dim / 2 elements, which gives the head size. `direction` is +1, or -1 for the inverse, which is
/// also the backward operation.
template <class Lazy = void>
void rope(context& ctx, matrix_view<float, device_space> q,
          vector_view<const std::int32_t, device_space> positions,
          vector_view<const float, device_space> inv_freq, rope_pairing pairing, float direction) {
  PESC_ASSERT(positions.size == q.rows && (q.empty() || q.cols % (2 * inv_freq.size) == 0));
  if (q.empty()) return;
  if (pairing == rope_pairing::neighbours)
    detail::launch_rope<true>(ctx, q, positions, inv_freq, direction);
  else
    detail::launch_rope<false>(ctx, q, positions, inv_freq, direction);
}

}  // namespace pesc::gpu
