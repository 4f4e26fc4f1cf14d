// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <type_traits>

#include "pesc/core/error.hpp"
#include "pesc/core/types.hpp"

namespace pesc {

/// \brief Calls `f(std::integral_constant<int, V>{})` for the listed value that equals `value`.
///
/// \throws shape_error when `value` is not listed
template <int... Values, class F>
void visit_value(index_t value, F&& f) {
  const bool found =
      ((value == Values ? (static_cast<void>(f(std::integral_constant<int, Values>{})), true) : false) ||
       ...);
  PESC_EXPECTS(found, "value ", value, " is not compiled in");
}

}  // namespace pesc
