// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/gpu/context.cuh"

namespace bench {

/// \brief Time between two points of a stream by the clock of the device: what the host does meanwhile is not counted.
class event_timer {
 public:
  explicit event_timer(pesc::gpu::context& ctx) : ctx_{&ctx} {
    PESC_CUDA_TRY(cudaEventCreate(&begin_));
    PESC_CUDA_TRY(cudaEventCreate(&end_));
  }
  ~event_timer() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }
  event_timer(const event_timer&) = delete;
  event_timer& operator=(const event_timer&) = delete;

  /// \brief Seconds of the work that `f` enqueues.
  template <class F>
  [[nodiscard]] double seconds(F&& f) {
    PESC_CUDA_TRY(cudaEventRecord(begin_, ctx_->stream()));
    f();
    PESC_CUDA_TRY(cudaEventRecord(end_, ctx_->stream()));
    PESC_CUDA_TRY(cudaEventSynchronize(end_));
    float milliseconds = 0;
    PESC_CUDA_TRY(cudaEventElapsedTime(&milliseconds, begin_, end_));
    return 1e-3 * static_cast<double>(milliseconds);
  }

 private:
  pesc::gpu::context* ctx_;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

/// \brief Bytes per second that the device reads and writes while it copies: the ceiling of everything bound by memory.
class copy_probe {
 public:
  copy_probe() : from_(bytes), to_(bytes) {}

  [[nodiscard]] double rate(pesc::gpu::context& ctx, event_timer& timer) {
    return 2.0 * bytes / timer.seconds([&] {
      PESC_CUDA_TRY(cudaMemcpyAsync(to_.data(), from_.data(), bytes, cudaMemcpyDeviceToDevice, ctx.stream()));
    });
  }

 private:
  static constexpr pesc::index_t bytes = pesc::index_t{256} << 20;
  pesc::device_buffer<std::byte> from_, to_;
};

}  // namespace bench
