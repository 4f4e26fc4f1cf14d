// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <utility>

#include "pesc/core/random.hpp"
#include "pesc/gpu/memory.cuh"
#include "pesc/gpu/step_values.cuh"

namespace pesc {
namespace gpu {

/// \brief What the operations need to know of a device.
struct device_limits {
  int device = 0;
  int compute_capability = 0;  ///< 10 major + minor
  int multiprocessors = 1;
  int shared_bytes = 0;  ///< the most that one block can opt in to
};

/// \brief What the operations of the CUDA backend run on: one device and one stream. Holds no model state.
///
/// Everything is ordered by the stream; nothing waits for it but `synchronize` and `download`. Used by one thread at a time;
/// layers may share it in sequence. The device must be current in the calling thread.
///
/// Operations that need no template parameter have an unused one, `Lazy`: a unit then compiles the kernels that it calls,
/// not all there are.
class context {
 public:
  using memory_space = device_space;

  /// \brief With a stream of its own on the current device.
  /// \throws cuda_error when there is no device, or its compute capability is below 8.0
  context() : limits_{query()} {
    PESC_CUDA_TRY(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    owned_ = true;
  }

  /// \brief On the caller's stream, which must outlive the context.
  /// \throws cuda_error as above
  explicit context(cudaStream_t stream) : limits_{query()}, stream_{stream} {}

  context(const context&) = delete;
  context& operator=(const context&) = delete;
  ~context() {
    if (owned_) static_cast<void>(cudaStreamDestroy(stream_));
  }

  [[nodiscard]] cudaStream_t stream() const { return stream_; }
  [[nodiscard]] const device_limits& limits() const { return limits_; }
  [[nodiscard]] static device_resource resource() { return {}; }

  /// \brief Counters by which the blocks of a kernel learn which of them comes last to a piece of work; zero between kernels.
  [[nodiscard]] vector_view<unsigned, device_space> tickets() { return tickets_.view(); }

  /// \brief Waits for all work of the stream.
  /// \throws cuda_error when a kernel failed since
  void synchronize() { PESC_CUDA_TRY(cudaStreamSynchronize(stream_)); }

  /// \brief Device memory from which operations take what changes from step to step; null: from their arguments.
  ///
  /// A captured graph repeats the arguments of its capture, so that a replay needs this.
  void read_step_values(const step_values* values) { values_ = values; }
  [[nodiscard]] const step_values* values() const { return values_; }

 private:
  static device_limits query() {
    device_limits out;
    PESC_CUDA_TRY(cudaGetDevice(&out.device));
    const auto attribute = [&](cudaDeviceAttr which) {
      int value = 0;
      PESC_CUDA_TRY(cudaDeviceGetAttribute(&value, which, out.device));
      return value;
    };
    const int major = attribute(cudaDevAttrComputeCapabilityMajor);
    const int minor = attribute(cudaDevAttrComputeCapabilityMinor);
    out.compute_capability = 10 * major + minor;
    out.multiprocessors = attribute(cudaDevAttrMultiProcessorCount);
    out.shared_bytes = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
    if (out.compute_capability < 80)
      pesc::detail::raise<cuda_error>(pesc::detail::concat("device ", out.device, " has compute capability ",
                                                           major, ".", minor,
                                                           ", pesc needs 8.0 (Ampere) or newer"));
    return out;
  }

  device_limits limits_;
  device_buffer<unsigned> tickets_{index_t{1} << 14};
  cudaStream_t stream_ = nullptr;
  bool owned_ = false;
  const step_values* values_ = nullptr;
};

}  // namespace gpu

/// \brief The CUDA backend.
using cuda_backend = gpu::context;

}  // namespace pesc
