// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <string>

#include "pesc/core/buffer.hpp"
#include "pesc/core/random.hpp"

namespace pesc {

/// \brief Hands out the named tensors of a flat arena of trainable parameters, or only counts its floats.
///
/// Parameters, gradients and both optimiser moments are arenas of one layout, so the optimiser, clipping and masks are
/// one loop over floats. The code that carves the views is the code that computes the size.
template <class Space = host_space>
class parameter_arena {
 public:
  /// \brief Tensors start at multiples of this many floats (one cache line); the gaps stay zero.
  static constexpr index_t alignment = 16;

  /// \brief An arena that counts and hands out null views.
  parameter_arena() = default;

  /// \param data  memory aligned to 64 bytes; may be the caller's own
  parameter_arena(float* data, index_t floats) : data_{data}, capacity_{floats} {}

  /// \brief Floats handed out so far, gaps included.
  [[nodiscard]] index_t size() const { return used_; }

  /// \throws shape_error when the arena is too small
  [[nodiscard]] batch_view<float, Space> take(index_t count, index_t rows, index_t cols) {
    const index_t begin = used_;
    used_ += round_up(count * rows * cols, alignment);
    if (data_ == nullptr) return {nullptr, count, rows, cols};
    PESC_EXPECTS(used_ <= capacity_, "parameter arena of ", capacity_, " floats is too small, at least ",
                 used_, " are needed");
    return {data_ + begin, count, rows, cols};
  }

  [[nodiscard]] matrix_view<float, Space> take(index_t rows, index_t cols) {
    return {take(1, rows, cols).data, rows, cols};
  }

 private:
  float* data_ = nullptr;
  index_t capacity_ = 0;
  index_t used_ = 0;
};

/// \brief A matrix seen as a stack of one, so that visitors of parameters see one kind of tensor.
template <class T, class Space>
[[nodiscard]] constexpr batch_view<T, Space> as_batch(matrix_view<T, Space> m) {
  return {m.data, 1, m.rows, m.cols};
}

/// \brief Kaiming-uniform start of a layer with `fan_in` inputs: uniform in ±1/sqrt(fan_in) (a = sqrt(5)).
///
/// The value of an element depends on the stream and its position only.
inline void fill_uniform(batch_view<float> out, index_t fan_in, const random_stream& stream) {
  const float bound = 1.0f / std::sqrt(static_cast<float>(fan_in));
  for (index_t i = 0; i < out.size(); ++i) {
    const float unit =
        stream.uniform(static_cast<std::uint32_t>(i / (1 << 20)), static_cast<std::uint32_t>(i % (1 << 20)));
    out.data[i] = (2.0f * unit - 1.0f) * bound;
  }
}

/// \brief Sets every element to zero.
inline void fill_zero(batch_view<float> out) {
  for (index_t i = 0; i < out.size(); ++i) out.data[i] = 0.0f;
}

}  // namespace pesc
