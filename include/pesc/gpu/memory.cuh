// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/core/buffer.hpp"
#include "pesc/gpu/error.cuh"

namespace pesc {

/// \brief Memory of the current device, zeroed. Allocating and freeing may wait for the device: neither belongs into a step.
struct device_resource {
  using memory_space = device_space;
  static constexpr std::size_t alignment = 256;

  /// \throws cuda_error when the device has not enough memory; the context stays usable
  [[nodiscard]] void* allocate(std::size_t bytes) const {
    void* data = nullptr;
    const cudaError_t status = cudaMalloc(&data, bytes);
    if (status != cudaSuccess) {
      static_cast<void>(cudaGetLastError());
      std::size_t free = 0;
      std::size_t total = 0;
      if (cudaMemGetInfo(&free, &total) != cudaSuccess) static_cast<void>(cudaGetLastError());
      detail::raise<cuda_error>(detail::concat("device allocation of ", bytes,
                                               " bytes: ", cudaGetErrorString(status), "; ", free, " of ",
                                               total, " bytes are free"));
    }
    // Waited for, because streams that do not block would not wait for it.
    cudaError_t cleared = cudaMemset(data, 0, bytes);
    if (cleared == cudaSuccess) cleared = cudaStreamSynchronize(nullptr);
    if (cleared != cudaSuccess) {
      cudaFree(data);
      gpu::detail::check(cleared, "cudaMemset of a new buffer");
    }
    return data;
  }

  void deallocate(void* data, std::size_t) const noexcept { static_cast<void>(cudaFree(data)); }
};

/// \brief Owns device memory.
template <class T>
using device_buffer = buffer<T, device_resource>;

}  // namespace pesc
