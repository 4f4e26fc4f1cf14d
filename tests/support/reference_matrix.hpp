// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <initializer_list>
#include <stdexcept>
#include <vector>

#include "pesc/core/types.hpp"

/// Naive double-precision versions of every operation of the library: loops that follow the formulas.
namespace reference {

using pesc::index_t;

/// \brief A vector that is indexed with signed numbers.
template <class T>
struct list : std::vector<T> {
  list() = default;
  explicit list(index_t n, const T& fill = T{}) : std::vector<T>(static_cast<std::size_t>(n), fill) {}
  list(std::initializer_list<T> values) : std::vector<T>(values) {}
  list(std::vector<T> values) : std::vector<T>(std::move(values)) {}

  T& operator[](index_t i) { return this->data()[i]; }
  const T& operator[](index_t i) const { return this->data()[i]; }
  index_t count() const { return static_cast<index_t>(this->size()); }
};

/// \brief Row-major matrix of doubles; a vector is a matrix of one row, an absent tensor has no elements.
struct matrix {
  index_t rows = 0;
  index_t cols = 0;
  std::vector<double> values;

  matrix() = default;
  matrix(index_t rows_, index_t cols_, double fill = 0)
      : rows(rows_), cols(cols_), values(static_cast<std::size_t>(rows_ * cols_), fill) {}
  matrix(index_t rows_, index_t cols_, std::vector<double> values_)
      : rows(rows_), cols(cols_), values(std::move(values_)) {
    if (values.size() != static_cast<std::size_t>(rows * cols))
      throw std::logic_error("matrix: wrong number of values");
  }

  double& operator()(index_t i, index_t j) { return values.data()[i * cols + j]; }
  double operator()(index_t i, index_t j) const { return values.data()[i * cols + j]; }
  double& operator[](index_t i) { return values.data()[i]; }
  double operator[](index_t i) const { return values.data()[i]; }

  double* data() { return values.data(); }
  const double* data() const { return values.data(); }
  std::size_t size() const { return values.size(); }
  index_t count() const { return static_cast<index_t>(values.size()); }
  bool empty() const { return values.empty(); }
};

/// \brief Copies `rows` x `cols` numbers whose rows begin `stride` elements apart.
template <class T>
matrix from(const T* source, index_t rows, index_t cols, index_t stride) {
  matrix result(rows, cols);
  for (index_t i = 0; i < rows; ++i)
    for (index_t j = 0; j < cols; ++j)
      result(i, j) = static_cast<double>(pesc::to_float(source[i * stride + j]));
  return result;
}

template <class T>
matrix from(const T* source, index_t rows, index_t cols) {
  return from(source, rows, cols, cols);
}

/// \brief The numbers as float, for handing to the library.
inline std::vector<float> to_floats(const matrix& a) {
  return std::vector<float>(a.values.begin(), a.values.end());
}

inline void require(bool condition, const char* what) {
  if (!condition) throw std::logic_error(what);
}

/// \brief a b.
inline matrix product(const matrix& a, const matrix& b) {
  require(a.cols == b.rows, "product: shapes differ");
  matrix c(a.rows, b.cols);
  for (index_t i = 0; i < a.rows; ++i)
    for (index_t k = 0; k < a.cols; ++k)
      for (index_t j = 0; j < b.cols; ++j) c(i, j) += a(i, k) * b(k, j);
  return c;
}

/// \brief a bT, which is y = x WT of a linear layer.
inline matrix product_transposed(const matrix& a, const matrix& b) {
  require(a.cols == b.cols, "product_transposed: shapes differ");
  matrix c(a.rows, b.rows);
  for (index_t i = 0; i < a.rows; ++i)
    for (index_t j = 0; j < b.rows; ++j)
      for (index_t k = 0; k < a.cols; ++k) c(i, j) += a(i, k) * b(j, k);
  return c;
}

/// \brief aT b, which is the weight gradient dyT x of a linear layer.
inline matrix transposed_product(const matrix& a, const matrix& b) {
  require(a.rows == b.rows, "transposed_product: shapes differ");
  matrix c(a.cols, b.cols);
  for (index_t k = 0; k < a.rows; ++k)
    for (index_t i = 0; i < a.cols; ++i)
      for (index_t j = 0; j < b.cols; ++j) c(i, j) += a(k, i) * b(k, j);
  return c;
}

/// \brief sum += scale * term; an absent `sum` starts at zero, an absent `term` adds nothing.
inline void add_to(matrix& sum, const matrix& term, double scale = 1) {
  if (term.empty()) return;
  if (sum.empty()) sum = matrix(term.rows, term.cols);
  require(sum.rows == term.rows && sum.cols == term.cols, "add_to: shapes differ");
  for (index_t i = 0; i < sum.count(); ++i) sum[i] += scale * term[i];
}

inline matrix scaled(const matrix& a, double scale) {
  matrix result = a;
  for (double& value : result.values) value *= scale;
  return result;
}

/// \brief Elementwise product; an absent factor counts as all ones, like the mask of a dropout that is off.
inline matrix masked(const matrix& a, const matrix& mask) {
  if (mask.empty()) return a;
  require(a.rows == mask.rows && a.cols == mask.cols, "masked: shapes differ");
  matrix result = a;
  for (index_t i = 0; i < a.count(); ++i) result[i] *= mask[i];
  return result;
}

/// \brief Sum over the rows, [1, cols].
inline matrix column_sums(const matrix& a) {
  matrix sums(1, a.cols);
  for (index_t i = 0; i < a.rows; ++i)
    for (index_t j = 0; j < a.cols; ++j) sums[j] += a(i, j);
  return sums;
}

}  // namespace reference
