// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "pesc/core/views.hpp"

namespace pesc {

/// \brief Hands out parts of one block of caller memory, or only counts the bytes that would be handed out.
///
/// The code that carves views out of memory is also the code that computes how much is needed: run it once on a
/// counting workspace, allocate `peak()` bytes, run it on a workspace over them. An operation that takes a
/// workspace carves its scratch first and returns when the workspace is `counting()`.
template <class Space = host_space>
class workspace {
 public:
  /// \brief Every part starts at a multiple of this many bytes.
  static constexpr index_t alignment = 64;

  /// \brief A workspace that counts and hands out null views.
  workspace() = default;

  /// \param data  memory aligned to 64 bytes
  /// \param bytes  its size
  workspace(void* data, index_t bytes) : data_{static_cast<std::byte*>(data)}, capacity_{bytes} {}

  [[nodiscard]] bool counting() const { return data_ == nullptr; }

  /// \brief The most bytes in use at any time so far.
  [[nodiscard]] index_t peak() const { return peak_; }

  /// \throws shape_error when the memory does not suffice; the message names the bytes needed
  template <class T>
  [[nodiscard]] vector_view<T, Space> take(index_t count) {
    const index_t begin = used_;
    const index_t bytes = round_up(count * static_cast<index_t>(sizeof(T)), alignment);
    used_ += bytes;
    peak_ = std::max(peak_, used_);
    if (counting()) return {nullptr, count};
    PESC_EXPECTS(used_ <= capacity_, "workspace of ", capacity_,
                 " bytes is too small, this call needs at least ", used_);
    return {reinterpret_cast<T*>(data_ + begin), count};
  }

  template <class T>
  [[nodiscard]] matrix_view<T, Space> take(index_t rows, index_t cols) {
    return {take<T>(rows * cols).data, rows, cols};
  }

  /// \brief Gives back, when it goes out of scope, what was taken since it was made.
  class scope {
   public:
    explicit scope(workspace& owner) : owner_{owner}, mark_{owner.used_} {}
    ~scope() { owner_.used_ = mark_; }
    scope(const scope&) = delete;
    scope& operator=(const scope&) = delete;

   private:
    workspace& owner_;
    index_t mark_;
  };

 private:
  std::byte* data_ = nullptr;
  index_t capacity_ = 0;
  index_t used_ = 0;
  index_t peak_ = 0;
};

}  // namespace pesc
