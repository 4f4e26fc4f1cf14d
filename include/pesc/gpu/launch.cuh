// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/gpu/context.cuh"

namespace pesc::gpu {

/// \brief How a kernel is launched.
struct launch_shape {
  dim3 grid;
  dim3 block;
  index_t shared_bytes = 0;  ///< dynamic shared memory of a block
};

/// \brief Blocks of `threads` threads for `count` work items, one each.
/// \throws shape_error when the grid would be larger than a device allows
[[nodiscard]] inline launch_shape grid_1d(index_t count, int threads = 256) {
  const index_t blocks = ceil_div(count, threads);
  PESC_EXPECTS(blocks <= 0x7FFFFFFF, "a launch of ", blocks, " blocks: at most 2147483647 are possible");
  return {dim3(static_cast<unsigned>(blocks)), dim3(static_cast<unsigned>(threads))};
}

/// \brief The only place where kernels are launched. A grid without blocks launches nothing.
///
/// \param name  of the kernel, for errors
/// \throws shape_error when a block asks for more shared memory than the device has, cuda_error when the launch fails
template <class... Parameters, class... Arguments>
void launch(const context& ctx, const char* name, void (*kernel)(Parameters...), const launch_shape& shape,
            const Arguments&... arguments) {
  if (shape.grid.x == 0 || shape.grid.y == 0 || shape.grid.z == 0) return;
  PESC_EXPECTS(shape.grid.y <= 65535 && shape.grid.z <= 65535, name, ": a grid of ", shape.grid.x, " x ",
               shape.grid.y, " x ", shape.grid.z, " blocks: at most 65535 along y and z");
  PESC_EXPECTS(shape.shared_bytes <= ctx.limits().shared_bytes, name, " needs ", shape.shared_bytes,
               " bytes of shared memory a block, the device has ", ctx.limits().shared_bytes);
  constexpr index_t without_opt_in = 48 * 1024;
  if (shape.shared_bytes > without_opt_in)
    detail::check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                       static_cast<int>(shape.shared_bytes)),
                  name);
  kernel<<<shape.grid, shape.block, static_cast<std::size_t>(shape.shared_bytes), ctx.stream()>>>(
      static_cast<Parameters>(arguments)...);
  detail::check(cudaGetLastError(), name);
}

}  // namespace pesc::gpu
