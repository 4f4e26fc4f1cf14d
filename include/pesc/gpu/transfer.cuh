// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/core/views.hpp"
#include "pesc/gpu/context.cuh"

namespace pesc::gpu {

/// \brief device = host, in stream order. Pageable host memory may be changed as soon as the call returns.
template <class T>
void upload(context& ctx, vector_view<const T> host, vector_view<T, device_space> device) {
  PESC_EXPECTS(host.size == device.size, "upload of ", host.size, " elements to ", device.size);
  if (host.empty()) return;
  PESC_CUDA_TRY(cudaMemcpyAsync(device.data, host.data, static_cast<std::size_t>(host.size) * sizeof(T),
                                cudaMemcpyHostToDevice, ctx.stream()));
}

/// \brief host = device; waits for the stream, so the values are there when the call returns.
/// \throws cuda_error when a kernel before it failed
template <class T>
void download(context& ctx, vector_view<const T, device_space> device, vector_view<T> host) {
  PESC_EXPECTS(host.size == device.size, "download of ", device.size, " elements to ", host.size);
  if (host.empty()) return;
  PESC_CUDA_TRY(cudaMemcpyAsync(host.data, device.data, static_cast<std::size_t>(host.size) * sizeof(T),
                                cudaMemcpyDeviceToHost, ctx.stream()));
  ctx.synchronize();
}

}  // namespace pesc::gpu
