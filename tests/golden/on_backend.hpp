// SPDX-License-Identifier: Apache-2.0
#pragma once

// The way of a case to a backend and back. Comparisons are written once, for any backend; everything that
// they hand to operations and read from them goes through here.

#include <algorithm>
#include <type_traits>
#include <vector>

#include "golden.hpp"
#include "pesc/core/workspace.hpp"

namespace golden {

/// \brief The values of a list of backend `X`, after all work before.
template <class X, class T, class Space>
[[nodiscard]] std::vector<std::remove_const_t<T>> values_of(X& ctx, pesc::vector_view<T, Space> list) {
  std::vector<std::remove_const_t<T>> out(static_cast<std::size_t>(list.size));
  download(ctx, pesc::as_const(list), view(out));
  return out;
}

/// \brief The same of a matrix without gaps between its rows.
template <class X, class T, class Space>
[[nodiscard]] std::vector<std::remove_const_t<T>> values_of(X& ctx, pesc::matrix_view<T, Space> m) {
  PESC_EXPECTS(m.stride == m.cols, "rows of ", m.cols, " values lie ", m.stride, " apart");
  return values_of(ctx, pesc::vector_view<T, Space>(m.data, m.size()));
}

/// \brief Replaces the values of a matrix without gaps.
template <class X, class Space>
void assign(X& ctx, pesc::matrix_view<float, Space> to, const std::vector<float>& from) {
  PESC_EXPECTS(static_cast<index_t>(from.size()) == to.size() && to.stride == to.cols, "tensor of ",
               from.size(), " values, expected ", to.rows, " x ", to.cols);
  upload(ctx, view(from), pesc::vector_view<float, Space>(to.data, to.size()));
}

/// \brief A list in the memory of backend `X`.
template <class X, class T>
class placed {
 public:
  using space = typename X::memory_space;

  placed(X& ctx, const std::vector<T>& values) : placed(ctx, static_cast<index_t>(values.size())) {
    upload(ctx, view(values), memory_.view());
  }
  /// \brief Zeros.
  placed(X& ctx, index_t count) : ctx_{&ctx}, memory_(count) {}

  [[nodiscard]] pesc::vector_view<T, space> list() { return memory_.view(); }
  [[nodiscard]] pesc::matrix_view<T, space> matrix(index_t rows, index_t cols) {
    PESC_EXPECTS(memory_.size() == rows * cols, "tensor of ", memory_.size(), " values, expected ", rows,
                 " x ", cols);
    return memory_.matrix(rows, cols);
  }
  [[nodiscard]] std::vector<T> values() const { return values_of(*ctx_, memory_.view()); }

 private:
  X* ctx_;
  pesc::buffer<T, pesc::resource_of<X>> memory_;
};

/// \brief Runs `f(workspace)` twice: to count, then over memory of that size.
template <class X, class F>
void with_workspace(X&, F&& f) {
  using space = typename X::memory_space;
  pesc::workspace<space> counting;
  f(counting);
  pesc::buffer<std::byte, pesc::resource_of<X>> memory(std::max<index_t>(counting.peak(), 64));
  pesc::workspace<space> ws(memory.data(), memory.size());
  f(ws);
}

/// \brief The tolerance of products in float, from that of the CPU.
///
/// A device forms them on tensor cores, from two parts of every number that together hold 22 of its 24 bits.
template <class X>
[[nodiscard]] constexpr double product_tolerance(double on_cpu) {
  return std::is_same_v<typename X::memory_space, pesc::host_space> ? on_cpu : std::max(on_cpu, 1e-5);
}

/// \brief Size of the terms whose difference the gradient of a balance loss is, scale · f_e p_e and scale ·
/// p_e Σ f p: with balanced or certain choices it nearly vanishes, in the reference too, and its rounding is
/// that of the terms.
template <class X, class Space>
[[nodiscard]] double balance_terms(X& ctx, const pesc::balance_gradient<Space>& g) {
  double largest = 0;
  for (const float f : values_of(ctx, g.fractions)) largest = std::fmax(largest, static_cast<double>(f));
  return largest * static_cast<double>(g.scale) / (g.rows.empty() ? 1.0 : values_of(ctx, g.rows)[0]);
}

}  // namespace golden
