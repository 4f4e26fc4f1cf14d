// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <new>
#include <utility>

#include "pesc/core/views.hpp"

namespace pesc {

/// \brief Host memory aligned to cache lines (64 bytes), so that vector loads never straddle one.
struct host_resource {
  using memory_space = host_space;
  static constexpr std::size_t alignment = 64;

  /// \throws std::bad_alloc
  [[nodiscard]] void* allocate(std::size_t bytes) const {
    return ::operator new (bytes, std::align_val_t{alignment});
  }
  void deallocate(void* data, std::size_t) const noexcept {
    ::operator delete (data, std::align_val_t{alignment});
  }
};

/// \brief Owns `size` elements of `T`; movable, not copyable. The elements start as zeros.
template <class T, class Resource = host_resource>
class buffer {
  static_assert(std::is_trivially_copyable_v<T>, "pesc: a buffer holds plain data only");

 public:
  using memory_space = typename Resource::memory_space;

  buffer() = default;

  /// \throws shape_error when the byte count overflows
  explicit buffer(index_t count, Resource resource = {}) : size_{count}, resource_{resource} {
    PESC_EXPECTS(count >= 0 && count <= index_t{1} << 48, "buffer of ", count,
                 " elements: count out of range");
    if (count == 0) return;
    data_ = static_cast<T*>(resource_.allocate(bytes()));
    if constexpr (std::is_same_v<memory_space, host_space>)
      for (index_t i = 0; i < count; ++i) new (data_ + i) T{};
  }

  buffer(buffer&& other) noexcept { swap(other); }
  buffer& operator=(buffer&& other) noexcept {
    buffer moved(std::move(other));
    swap(moved);
    return *this;
  }
  ~buffer() {
    if (data_ != nullptr) resource_.deallocate(data_, bytes());
  }

  void swap(buffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(resource_, other.resource_);
  }

  [[nodiscard]] T* data() noexcept { return data_; }
  [[nodiscard]] const T* data() const noexcept { return data_; }
  [[nodiscard]] index_t size() const noexcept { return size_; }
  [[nodiscard]] T& operator[](index_t i) { return data_[i]; }
  [[nodiscard]] const T& operator[](index_t i) const { return data_[i]; }
  [[nodiscard]] vector_view<T, memory_space> view() noexcept { return {data_, size_}; }
  [[nodiscard]] vector_view<const T, memory_space> view() const noexcept { return {data_, size_}; }

  /// \brief The elements as a dense matrix of `rows` times `cols`, which must not be more than there are.
  [[nodiscard]] matrix_view<T, memory_space> matrix(index_t rows, index_t cols) {
    PESC_ASSERT(rows * cols <= size_);
    return {data_, rows, cols};
  }

 private:
  [[nodiscard]] std::size_t bytes() const { return static_cast<std::size_t>(size_) * sizeof(T); }

  T* data_ = nullptr;
  index_t size_ = 0;
  [[no_unique_address]] Resource resource_{};
};

/// \brief The memory that a backend's context `X` allocates from.
template <class X>
using resource_of = std::remove_cvref_t<decltype(std::declval<X&>().resource())>;

}  // namespace pesc
