// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include "pesc/core/error.hpp"

namespace pesc {

/// \brief The CUDA runtime, or a kernel, reported an error; `what()` names the call or the kernel.
class cuda_error : public error {
 public:
  using error::error;
};

namespace gpu::detail {

/// \brief Raises `cuda_error` unless `status` is success; clears an error that does not poison the context.
inline void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) [[likely]]
    return;
  static_cast<void>(cudaGetLastError());
  pesc::detail::raise<cuda_error>(
      pesc::detail::concat(what, ": ", cudaGetErrorString(status), " (", cudaGetErrorName(status), ")"));
}

}  // namespace gpu::detail
}  // namespace pesc

/// \brief Calls a function of the CUDA runtime; a failure raises `cuda_error` with the text of the call.
#define PESC_CUDA_TRY(...) ::pesc::gpu::detail::check((__VA_ARGS__), #__VA_ARGS__)
