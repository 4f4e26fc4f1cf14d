// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "gpu/result_bits.hpp"
#include "pesc/gpu/transfer.cuh"

namespace support {

/// \brief A copy of a host list in device memory, with red zones around it where the simulator runs.
template <class T>
class on_device {
 public:
  explicit on_device(pesc::gpu::context& ctx, const std::vector<T>& values)
      : ctx_{&ctx}, buffer_(static_cast<pesc::index_t>(values.size())) {
    pesc::gpu::upload(ctx, pesc::vector_view<const T>{values.data(), buffer_.size()}, buffer_.view());
  }
  on_device(pesc::gpu::context& ctx, pesc::index_t count) : ctx_{&ctx}, buffer_(count) {}

  [[nodiscard]] pesc::vector_view<T, pesc::device_space> view() { return buffer_.view(); }
  [[nodiscard]] pesc::matrix_view<T, pesc::device_space> matrix(pesc::index_t rows, pesc::index_t cols) {
    return buffer_.matrix(rows, cols);
  }
  [[nodiscard]] T* data() { return buffer_.data(); }

  /// \brief The values after all work of the stream.
  [[nodiscard]] std::vector<T> values() const {
    std::vector<T> out(static_cast<std::size_t>(buffer_.size()));
    pesc::gpu::download(*ctx_, buffer_.view(), pesc::vector_view<T>{out.data(), buffer_.size()});
    note_bits(out);
    return out;
  }

 private:
  pesc::gpu::context* ctx_;
  pesc::device_buffer<T> buffer_;
};

}  // namespace support
