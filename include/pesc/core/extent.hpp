// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/core/error.hpp"
#include "pesc/core/types.hpp"

namespace pesc {

/// \brief Stands for a size that is known at run time only.
inline constexpr int dynamic = -1;

/// \brief A size: a constant that takes no storage, or a stored value when `N` is `dynamic`.
template <int N>
struct extent {
  constexpr extent() = default;

  /// \throws shape_error when `value` is another number than the constant
  constexpr explicit extent(index_t value) {
    PESC_EXPECTS(value == N, "size is ", value, ", but this type is compiled for ", N);
  }

  PESC_HOST_DEVICE static constexpr index_t value() { return N; }
};

template <>
struct extent<dynamic> {
  constexpr extent() = default;
  constexpr explicit extent(index_t value) : value_{value} {}

  PESC_HOST_DEVICE constexpr index_t value() const { return value_; }

 private:
  index_t value_ = 0;
};

}  // namespace pesc
