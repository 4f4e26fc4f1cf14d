// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "pesc/core/types.hpp"

namespace bench {

/// \brief Zeroed memory in large pages where the system has them, so that page walks do not hide the kernels'
/// speed.
class large_memory {
 public:
  explicit large_memory(pesc::index_t bytes) {
    constexpr std::size_t page = std::size_t{1} << 21;
    const std::size_t size = (static_cast<std::size_t>(bytes) + page - 1) / page * page;
    data_ = std::aligned_alloc(page, size);
    if (data_ == nullptr) throw std::bad_alloc();
#if defined(__linux__)
    madvise(data_, size, MADV_HUGEPAGE);
#endif
    std::memset(data_, 0, size);
  }
  large_memory(large_memory&& other) noexcept : data_{std::exchange(other.data_, nullptr)} {}
  large_memory& operator=(large_memory&&) = delete;
  ~large_memory() { std::free(data_); }

  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_ = nullptr;
};

}  // namespace bench
