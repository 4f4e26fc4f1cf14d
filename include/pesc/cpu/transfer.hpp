// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "pesc/core/views.hpp"
#include "pesc/cpu/context.hpp"
#include "pesc/quant/quantized_matrix.hpp"

// Between the caller's memory and that of the backend. Here both are the same memory, so these are copies; code that is
// written for any backend calls them nevertheless.

namespace pesc::cpu {
inline namespace PESC_CPU_ABI {

/// \brief backend = host; both of one size.
template <Executor E, IsaPolicy I, class T>
void upload(context<E, I>&, vector_view<const T> host, vector_view<T> backend) {
  PESC_EXPECTS(host.size == backend.size, "upload of ", host.size, " elements to ", backend.size);
  std::copy_n(host.data, host.size, backend.data);
}

/// \brief host = backend, after all work before it.
template <Executor E, IsaPolicy I, class T>
void download(context<E, I>&, vector_view<const T> backend, vector_view<T> host) {
  PESC_EXPECTS(host.size == backend.size, "download of ", backend.size, " elements to ", host.size);
  std::copy_n(backend.data, backend.size, host.data);
}

/// \brief A weight of a checkpoint in the order of the backend's kernels; see `pesc::pack`.
template <Executor E, IsaPolicy I, QuantFormat Format>
[[nodiscard]] quantized_matrix<Format, panels> pack(context<E, I>&,
                                                    const quantized_view<Format, row_blocks>& from) {
  return pesc::pack(from);
}

}  // namespace PESC_CPU_ABI
}  // namespace pesc::cpu
