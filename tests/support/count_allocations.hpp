// SPDX-License-Identifier: Apache-2.0
#pragma once

// Counts what the whole program allocates, by any thread and through any function, while a counter is alive. Replaces the
// allocator's entry points, so one unit of a program includes this file.

#include <atomic>
#include <cerrno>
#include <cstddef>

// The intrinsics of clang declare one of the functions once more, which must come before the definition.
#if __has_include(<mm_malloc.h>)
#include <mm_malloc.h>
#endif

#if defined(__has_feature)
#define SUPPORT_HAS_FEATURE(name) __has_feature(name)
#else
#define SUPPORT_HAS_FEATURE(name) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || \
    SUPPORT_HAS_FEATURE(address_sanitizer) || SUPPORT_HAS_FEATURE(thread_sanitizer)
#define SUPPORT_SANITIZED 1
#else
#define SUPPORT_SANITIZED 0
#endif

namespace support {
namespace detail {

inline std::atomic<bool> counting_allocations{false};
inline std::atomic<long> allocations{0};

inline void note_allocation() {
  if (counting_allocations.load(std::memory_order_relaxed))
    allocations.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace detail

/// \brief Number of allocations during the life of this object.
class allocation_counter {
 public:
  allocation_counter() {
    detail::allocations = 0;
    detail::counting_allocations = true;
  }
  ~allocation_counter() { detail::counting_allocations = false; }
  allocation_counter(const allocation_counter&) = delete;
  allocation_counter& operator=(const allocation_counter&) = delete;

  [[nodiscard]] long count() const { return detail::allocations; }
};

/// \brief How often `action()` allocates.
template <class Action>
long allocations_of(Action&& action) {
  const allocation_counter counter;
  action();
  return counter.count();
}

}  // namespace support

#if SUPPORT_SANITIZED

// The sanitizer owns the allocator and calls us.
extern "C" int __sanitizer_install_malloc_and_free_hooks(void (*malloc_hook)(const volatile void*,
                                                                             std::size_t),
                                                         void (*free_hook)(const volatile void*));
namespace {
[[maybe_unused]] const int installed_allocation_hooks = __sanitizer_install_malloc_and_free_hooks(
    [](const volatile void*, std::size_t) { support::detail::note_allocation(); },
    [](const volatile void*) {});
}  // namespace

#else

// The C library's own functions under the names that it keeps for replacements; operator new ends in one of these.
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);

void* malloc(std::size_t bytes) noexcept {
  support::detail::note_allocation();
  return __libc_malloc(bytes);
}
void* calloc(std::size_t count, std::size_t bytes) noexcept {
  support::detail::note_allocation();
  return __libc_calloc(count, bytes);
}
void* realloc(void* data, std::size_t bytes) noexcept {
  support::detail::note_allocation();
  return __libc_realloc(data, bytes);
}
void* memalign(std::size_t alignment, std::size_t bytes) noexcept {
  support::detail::note_allocation();
  return __libc_memalign(alignment, bytes);
}
void* aligned_alloc(std::size_t alignment, std::size_t bytes) noexcept { return memalign(alignment, bytes); }
int posix_memalign(void** out, std::size_t alignment, std::size_t bytes) noexcept {
  void* const data = memalign(alignment, bytes);
  if (data == nullptr) return ENOMEM;
  *out = data;
  return 0;
}
}

#endif
