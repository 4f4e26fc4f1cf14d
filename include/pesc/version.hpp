// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \brief Version of the library, for preprocessor comparisons: 10000 * major + 100 * minor + patch.
#define PESC_VERSION_MAJOR 0
#define PESC_VERSION_MINOR 1
#define PESC_VERSION_PATCH 0
#define PESC_VERSION (PESC_VERSION_MAJOR * 10000 + PESC_VERSION_MINOR * 100 + PESC_VERSION_PATCH)

namespace pesc {

/// \brief Version of the library as text, for programs that print it.
inline constexpr const char* version_string = "0.1.0";

}  // namespace pesc
