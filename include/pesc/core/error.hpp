// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

#include "pesc/core/macros.hpp"

namespace pesc {

/// \brief Base of everything the library throws; `what()` is one line with numbers and names.
class error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// \brief Sizes that do not fit together, or an option outside its range.
class shape_error : public error {
 public:
  using error::error;
};

/// \brief A file, or bytes from one, that does not hold what its format promises.
class format_error : public error {
 public:
  using error::error;
};

/// \brief The operating system refused: a missing file, a full disk, no permission.
class io_error : public error {
 public:
  using error::error;
};

/// \brief Numbers became NaN or infinite where the computation cannot go on.
class numeric_error : public error {
 public:
  using error::error;
};

namespace detail {

/// \brief The one place that decides how an error leaves the library: thrown, or printed before an abort.
template <class Error>
[[noreturn]] inline void raise(const std::string& message) {
#if PESC_HAS_EXCEPTIONS
  throw Error(message);
#else
  std::fprintf(stderr, "pesc: %s\n", message.c_str());
  std::abort();
#endif
}

inline void append(std::string& out, std::string_view text) { out += text; }

template <class Number>
  requires std::is_arithmetic_v<Number>
void append(std::string& out, Number value) {
  if constexpr (std::is_same_v<Number, char>) {
    out += value;
  } else if constexpr (std::is_floating_point_v<Number>) {
    char text[32];
    std::snprintf(text, sizeof text, "%g", static_cast<double>(value));
    out += text;
  } else {
    out += std::to_string(value);
  }
}

/// \brief Puts texts and numbers together to one message.
template <class... Parts>
[[nodiscard]] std::string concat(const Parts&... parts) {
  std::string out;
  (append(out, parts), ...);
  return out;
}

}  // namespace detail
}  // namespace pesc
