// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <Eigen/Core>

#include "pesc/core/views.hpp"

namespace pesc {

/// \brief Row-major Eigen matrix: the storage order of views.
template <class T>
using eigen_matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// \brief The memory of a view as an Eigen expression, for any row stride; constant where the view is.
template <class T>
[[nodiscard]] auto as_eigen(matrix_view<T> m) {
  using plain = eigen_matrix<std::remove_const_t<T>>;
  using mapped = std::conditional_t<std::is_const_v<T>, const plain, plain>;
  return Eigen::Map<mapped, Eigen::Unaligned, Eigen::OuterStride<>>(m.data, m.rows, m.cols,
                                                                    Eigen::OuterStride<>(m.stride));
}

/// \brief A column vector over the memory of a view.
template <class T>
[[nodiscard]] auto as_eigen(vector_view<T> v) {
  using plain = Eigen::Matrix<std::remove_const_t<T>, Eigen::Dynamic, 1>;
  using mapped = std::conditional_t<std::is_const_v<T>, const plain, plain>;
  return Eigen::Map<mapped, Eigen::Unaligned>(v.data, v.size);
}

/// \brief View of a row-major Eigen matrix, which must outlive it.
template <class T>
[[nodiscard]] matrix_view<T> from_eigen(eigen_matrix<T>& m) {
  return {m.data(), m.rows(), m.cols(), m.cols()};
}
template <class T>
[[nodiscard]] matrix_view<const T> from_eigen(const eigen_matrix<T>& m) {
  return {m.data(), m.rows(), m.cols(), m.cols()};
}

}  // namespace pesc
