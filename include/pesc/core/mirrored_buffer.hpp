// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "pesc/core/buffer.hpp"

namespace pesc {

/// \brief A list that operations of a backend write and the host reads: memory of the backend, with a copy in host memory
/// where the two are not one.
template <class T, class Resource = host_resource>
class mirrored_buffer {
 public:
  using memory_space = typename Resource::memory_space;

  mirrored_buffer() = default;
  explicit mirrored_buffer(index_t count) : values_(count), copy_(on_host ? 0 : count) {}

  [[nodiscard]] index_t size() const { return values_.size(); }

  /// \brief What operations work on.
  [[nodiscard]] vector_view<T, memory_space> view() { return values_.view(); }

  /// \brief The values after all work before; waits for the backend. Valid until they are written or read again.
  template <class X>
  vector_view<const T> read(X& ctx) {
    if constexpr (!on_host) download(ctx, as_const(values_.view()), copy_.view());
    return last_read();
  }

  /// \brief What `read` gave last, without asking the backend.
  [[nodiscard]] vector_view<const T> last_read() const {
    if constexpr (on_host)
      return values_.view();
    else
      return copy_.view();
  }

  /// \brief Zeros, in the order of the backend's work.
  template <class X>
  void clear(X& ctx) {
    if constexpr (on_host) {
      std::fill_n(values_.data(), values_.size(), T{});
    } else {
      std::fill_n(copy_.data(), copy_.size(), T{});
      upload(ctx, as_const(copy_.view()), values_.view());
    }
  }

 private:
  static constexpr bool on_host = std::is_same_v<memory_space, host_space>;

  buffer<T, Resource> values_;
  buffer<T> copy_;
};

}  // namespace pesc
