// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "pesc/core/macros.hpp"

namespace pesc {

/// \brief `std::array` for code that runs on the device too, where the standard one's operators may not be called.
template <class T, std::size_t N>
struct array {
  T elements[N];

  PESC_HOST_DEVICE constexpr T& operator[](std::size_t i) { return elements[i]; }
  PESC_HOST_DEVICE constexpr const T& operator[](std::size_t i) const { return elements[i]; }
  PESC_HOST_DEVICE static constexpr std::size_t size() { return N; }
  PESC_HOST_DEVICE constexpr T* data() { return elements; }
  PESC_HOST_DEVICE constexpr const T* data() const { return elements; }
  PESC_HOST_DEVICE constexpr T* begin() { return elements; }
  PESC_HOST_DEVICE constexpr T* end() { return elements + N; }
  PESC_HOST_DEVICE constexpr const T* begin() const { return elements; }
  PESC_HOST_DEVICE constexpr const T* end() const { return elements + N; }

  friend constexpr bool operator==(const array&, const array&) = default;
};

}  // namespace pesc
