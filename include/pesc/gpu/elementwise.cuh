// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "pesc/gpu/detail/elementwise_kernels.cuh"
#include "pesc/gpu/launch.cuh"

namespace pesc::gpu {
namespace detail {

/// \brief Whether every row can be moved in packs of `Width` elements.
template <int Width, class T>
[[nodiscard]] bool packable(const device_matrix<T>& m) {
  return reinterpret_cast<std::uintptr_t>(m.data) % (Width * sizeof(T)) == 0 && m.cols % Width == 0 &&
         (m.rows <= 1 || m.stride % Width == 0);
}

template <int Width, class T>
[[nodiscard]] bool packable(const device_vector<T>& v) {
  return packable<Width>(device_matrix<T>(v.data, 1, v.size));
}

/// \brief Calls `body` with a constant: `Width` where all views can be moved in such packs, else 1.
template <int Width, class Body, class... Views>
void with_width(const Body& body, const Views&... views) {
  if ((packable<Width>(views) && ...))
    body(std::integral_constant<int, Width>{});
  else
    body(std::integral_constant<int, 1>{});
}

/// \brief Turns matrices of one shape into one row each where none has gaps between rows.
template <class... Views>
void flatten(Views&... views) {
  if (((views.stride == views.cols) && ...)) ((views = Views(views.data, 1, views.size())), ...);
}

/// \brief Launch of a kernel that uses `for_packs`, of `packs` packs in each row.
[[nodiscard]] inline launch_shape map_shape(index_t rows, index_t packs) {
  constexpr unsigned threads = 256;
  unsigned x = 1;
  while (x < threads && x < packs) x *= 2;
  const unsigned y = threads / x;
  const index_t across = ceil_div(packs, x);
  PESC_EXPECTS(across <= 0x7FFFFFFF, "rows of ", packs, " packs are too long for one launch");
  const index_t down = std::min<index_t>(ceil_div(rows, y), 65535);
  return {dim3(static_cast<unsigned>(across), static_cast<unsigned>(down)), dim3(x, y)};
}

}  // namespace detail

/// \brief y = v everywhere.
template <class T>
  requires(std::is_same_v<T, float> || std::is_same_v<T, double>)
void fill(context& ctx, matrix_view<T, device_space> y, std::type_identity_t<T> v) {
  detail::flatten(y);
  detail::with_width<16 / sizeof(T)>(
      [&](auto width) {
        launch(ctx, "fill_kernel", detail::fill_kernel<width(), T>,
               detail::map_shape(y.rows, y.cols / width()), y, v);
      },
      y);
}

template <class T>
  requires(std::is_same_v<T, float> || std::is_same_v<T, double>)
void fill(context& ctx, vector_view<T, device_space> y, std::type_identity_t<T> v) {
  fill(ctx, matrix_view<T, device_space>(y.data, 1, y.size), v);
}

/// \brief y = x, converted to the element type of `y` (nearest, ties to even).
template <Scalar S, Scalar T>
void copy(context& ctx, matrix_view<const S, device_space> x, matrix_view<T, device_space> y) {
  PESC_ASSERT(x.rows == y.rows && x.cols == y.cols);
  detail::flatten(x, y);
  detail::with_width<16 / std::max(sizeof(S), sizeof(T))>(
      [&](auto width) {
        launch(ctx, "copy_kernel", detail::copy_kernel<width(), S, T>,
               detail::map_shape(y.rows, y.cols / width()), x, y);
      },
      x, y);
}

template <Scalar S, Scalar T>
void copy(context& ctx, matrix_view<S, device_space> x,
          matrix_view<T, device_space> y) requires(!std::is_const_v<S>) {
  copy(ctx, as_const(x), y);
}

/// \brief y = act(x).
template <Activation A>
void activate(context& ctx, A, matrix_view<const float, device_space> x, matrix_view<float, device_space> y) {
  PESC_ASSERT(x.rows == y.rows && x.cols == y.cols);
  detail::flatten(x, y);
  detail::with_width<4>(
      [&](auto width) {
        launch(ctx, "activate_kernel", detail::activate_kernel<width(), A>,
               detail::map_shape(y.rows, y.cols / width()), x, y);
      },
      x, y);
}

/// \brief dx = dy * act'(x); `dx` may be `dy` or `x`.
template <Activation A>
void activate_backward(context& ctx, A, matrix_view<const float, device_space> x,
                       matrix_view<const float, device_space> dy, matrix_view<float, device_space> dx) {
  PESC_ASSERT(x.rows == dx.rows && x.cols == dx.cols && dy.rows == dx.rows && dy.cols == dx.cols);
  detail::flatten(x, dy, dx);
  detail::with_width<4>(
      [&](auto width) {
        launch(ctx, "activate_backward_kernel", detail::activate_backward_kernel<width(), A>,
               detail::map_shape(dx.rows, dx.cols / width()), x, dy, dx);
      },
      x, dy, dx);
}

/// \brief out = act(gate) * up.
template <Activation A>
void gated_activate(context& ctx, A, matrix_view<const float, device_space> gate,
                    matrix_view<const float, device_space> up, matrix_view<float, device_space> out) {
  PESC_ASSERT(gate.rows == out.rows && gate.cols == out.cols && up.rows == out.rows && up.cols == out.cols);
  detail::flatten(gate, up, out);
  detail::with_width<4>(
      [&](auto width) {
        launch(ctx, "gated_activate_kernel", detail::gated_activate_kernel<width(), A>,
               detail::map_shape(out.rows, out.cols / width()), gate, up, out);
      },
      gate, up, out);
}

/// \brief dgate = dout * up * act'(gate), dup = dout * act(gate).
///
/// `dgate` and `dup` may be any of the inputs, but not each other.
template <Activation A>
void gated_activate_backward(context& ctx, A, matrix_view<const float, device_space> gate,
                             matrix_view<const float, device_space> up,
                             matrix_view<const float, device_space> dout,
                             matrix_view<float, device_space> dgate, matrix_view<float, device_space> dup) {
  PESC_ASSERT(gate.rows == dout.rows && gate.cols == dout.cols && up.rows == dout.rows &&
              up.cols == dout.cols);
  detail::flatten(gate, up, dout, dgate, dup);
  detail::with_width<4>(
      [&](auto width) {
        launch(ctx, "gated_activate_backward_kernel", detail::gated_activate_backward_kernel<width(), A>,
               detail::map_shape(dout.rows, dout.cols / width()), gate, up, dout, dgate, dup);
      },
      gate, up, dout, dgate, dup);
}

/// \brief y += alpha * x.
template <class Lazy = void>
void add_scaled(context& ctx, matrix_view<const float, device_space> x, float alpha,
                matrix_view<float, device_space> y) {
  PESC_ASSERT(x.rows == y.rows && x.cols == y.cols);
  detail::flatten(x, y);
  detail::with_width<4>(
      [&](auto width) {
        launch(ctx, "add_scaled_kernel", detail::add_scaled_kernel<width()>,
               detail::map_shape(y.rows, y.cols / width()), x, alpha, y);
      },
      x, y);
}

/// \brief Adds `bias` to every row of `y`.
template <class Lazy = void>
void add_bias(context& ctx, vector_view<const float, device_space> bias, matrix_view<float, device_space> y) {
  PESC_ASSERT(bias.size == y.cols);
  detail::with_width<4>(
      [&](auto width) {
        launch(ctx, "add_bias_kernel", detail::add_bias_kernel<width()>,
               detail::map_shape(y.rows, y.cols / width()), bias, y);
      },
      bias, y);
}

namespace detail {

template <class Lazy = void>
void launch_dropout(context& ctx, device_matrix<const float> x, const std::int32_t* row_ids, float p,
                    const random_stream& s, device_matrix<float> y) {
  PESC_ASSERT(x.rows == y.rows && x.cols == y.cols && p >= 0.0f && p < 1.0f);
  with_width<4>(
      [&](auto width) {
        launch(ctx, "dropout_kernel", dropout_kernel<width()>, map_shape(y.rows, ceil_div(y.cols, 4)), x,
               row_ids, p, 1.0f / (1.0f - p), s, ctx.values(), y);
      },
      x, y);
}

}  // namespace detail

/// \brief y = x / (1 - p) where s.uniform(row, column) >= p, else 0; `y` may be `x`, 0 <= p < 1.
///
/// Seed and step of the stream come from the step values where the context has them. The bits are those of the CPU.
template <class Lazy = void>
void dropout(context& ctx, matrix_view<const float, device_space> x, float p, const random_stream& s,
             matrix_view<float, device_space> y) {
  detail::launch_dropout(ctx, x, nullptr, p, s, y);
}

/// \brief As `dropout`, with the mask row of row i named by `row_ids[i]`, so that a mask does not depend on grouping.
template <class Lazy = void>
void dropout_rows(context& ctx, matrix_view<const float, device_space> x,
                  vector_view<const std::int32_t, device_space> row_ids, float p, const random_stream& s,
                  matrix_view<float, device_space> y) {
  PESC_ASSERT(row_ids.size >= x.rows);
  detail::launch_dropout(ctx, x, row_ids.data, p, s, y);
}

}  // namespace pesc::gpu
