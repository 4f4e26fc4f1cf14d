// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <type_traits>

#include "pesc/core/error.hpp"
#include "pesc/core/types.hpp"

namespace pesc {

/// \brief Memory that the CPU reads and writes.
struct host_space {};

/// \brief Memory that the GPU reads and writes.
struct device_space {};

namespace detail {

/// \brief `first + offset`, but null for null: parts of a view over no memory, as a counting workspace gives, have none.
template <class T>
PESC_HOST_DEVICE constexpr T* advance(T* first, index_t offset) {
  return first == nullptr ? nullptr : first + offset;
}

}  // namespace detail

/// \brief Non-owning array of `size` elements; copied by value.
template <class T, class Space = host_space>
struct vector_view {
  T* data = nullptr;
  index_t size = 0;

  constexpr vector_view() = default;
  PESC_HOST_DEVICE constexpr vector_view(T* first, index_t count) : data{first}, size{count} {}

  /// \brief From host lists: arrays, `std::vector`, `std::span`.
  template <std::size_t Extent>
    requires std::is_same_v<Space, host_space>
  constexpr vector_view(std::span<T, Extent> list)
      : data{list.data()}, size{static_cast<index_t>(list.size())} {}

  /// \brief A view to change is also a view to read.
  template <class U>
    requires(std::is_same_v<const U, T>)
  PESC_HOST_DEVICE constexpr vector_view(vector_view<U, Space> other) : data{other.data}, size{other.size} {}

  PESC_HOST_DEVICE constexpr T& operator[](index_t i) const { return data[i]; }
  PESC_HOST_DEVICE constexpr T* begin() const { return data; }
  PESC_HOST_DEVICE constexpr T* end() const { return data + size; }
  PESC_HOST_DEVICE constexpr bool empty() const { return size == 0; }

  /// \brief The `count` elements from `first` on.
  PESC_HOST_DEVICE constexpr vector_view part(index_t first, index_t count) const {
    PESC_ASSERT(first >= 0 && count >= 0 && first + count <= size);
    return {detail::advance(data, first), count};
  }
};

/// \brief Non-owning row-major matrix; rows lie `stride` elements apart; copied by value.
template <class T, class Space = host_space>
struct matrix_view {
  T* data = nullptr;
  index_t rows = 0;
  index_t cols = 0;
  index_t stride = 0;

  constexpr matrix_view() = default;
  PESC_HOST_DEVICE constexpr matrix_view(T* first, index_t row_count, index_t col_count)
      : data{first}, rows{row_count}, cols{col_count}, stride{col_count} {}
  PESC_HOST_DEVICE constexpr matrix_view(T* first, index_t row_count, index_t col_count, index_t row_stride)
      : data{first}, rows{row_count}, cols{col_count}, stride{row_stride} {}

  template <class U>
    requires(std::is_same_v<const U, T>)
  PESC_HOST_DEVICE constexpr matrix_view(matrix_view<U, Space> other)
      : data{other.data}, rows{other.rows}, cols{other.cols}, stride{other.stride} {}

  PESC_HOST_DEVICE constexpr T* row(index_t i) const { return data + i * stride; }
  PESC_HOST_DEVICE constexpr T& operator()(index_t i, index_t j) const { return data[i * stride + j]; }
  PESC_HOST_DEVICE constexpr index_t size() const { return rows * cols; }
  PESC_HOST_DEVICE constexpr bool empty() const { return rows == 0 || cols == 0; }

  /// \brief The `count` rows from `first` on.
  PESC_HOST_DEVICE constexpr matrix_view row_range(index_t first, index_t count) const {
    PESC_ASSERT(first >= 0 && count >= 0 && first + count <= rows);
    return {detail::advance(data, first * stride), count, cols, stride};
  }

  /// \brief The `count` columns from `first` on, of every row.
  PESC_HOST_DEVICE constexpr matrix_view col_range(index_t first, index_t count) const {
    PESC_ASSERT(first >= 0 && count >= 0 && first + count <= cols);
    return {detail::advance(data, first), rows, count, stride};
  }
};

/// \brief Non-owning stack of `count` dense matrices of the same shape, one per expert.
template <class T, class Space = host_space>
struct batch_view {
  T* data = nullptr;
  index_t count = 0;
  index_t rows = 0;
  index_t cols = 0;

  constexpr batch_view() = default;
  PESC_HOST_DEVICE constexpr batch_view(T* first, index_t matrices, index_t row_count, index_t col_count)
      : data{first}, count{matrices}, rows{row_count}, cols{col_count} {}

  template <class U>
    requires(std::is_same_v<const U, T>)
  PESC_HOST_DEVICE constexpr batch_view(batch_view<U, Space> other)
      : data{other.data}, count{other.count}, rows{other.rows}, cols{other.cols} {}

  PESC_HOST_DEVICE constexpr matrix_view<T, Space> operator[](index_t i) const {
    return {data + i * rows * cols, rows, cols};
  }
  PESC_HOST_DEVICE constexpr index_t size() const { return count * rows * cols; }
};

/// \brief The same view, for reading only.
template <class T, class Space>
PESC_HOST_DEVICE constexpr vector_view<const T, Space> as_const(vector_view<T, Space> v) {
  return v;
}
template <class T, class Space>
PESC_HOST_DEVICE constexpr matrix_view<const T, Space> as_const(matrix_view<T, Space> m) {
  return m;
}
template <class T, class Space>
PESC_HOST_DEVICE constexpr batch_view<const T, Space> as_const(batch_view<T, Space> b) {
  return b;
}

}  // namespace pesc
