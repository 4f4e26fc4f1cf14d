// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "pesc/cpu/executor.hpp"

namespace pesc::cpu {
inline namespace PESC_CPU_ABI {

/// \brief A fixed set of workers; the calling thread is one of them.
///
/// Idle workers spin for a few microseconds and then sleep, since a spinning worker on a shared machine takes the core
/// that the others need. One thread at a time may call `parallel_for` of a pool.
class thread_pool {
 public:
  /// \param threads  workers including the caller; 0: one per hardware thread
  /// \throws std::system_error when the system gives no thread
  explicit thread_pool(int threads = 0) : thread_pool(no_workers{}) {
    // From here on the destructor runs even if a thread fails to start, and ends those that did.
    if (threads <= 0) threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
    for (int worker = 1; worker < threads; ++worker) threads_.emplace_back([this, worker] { work(worker); });
    // Returns when every worker runs, so that what a starting thread allocates belongs to no call.
    parallel_for(2, 1, [](index_t, index_t, int) {});
  }

  ~thread_pool() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
      generation_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  thread_pool(const thread_pool&) = delete;
  thread_pool& operator=(const thread_pool&) = delete;

  [[nodiscard]] int concurrency() const { return static_cast<int>(threads_.size()) + 1; }

  void parallel_for(index_t count, index_t grain, chunk_function f) {
    if (count <= 0) return;
    if (threads_.empty() || count <= grain || inside()) {
      inline_executor{}.parallel_for(count, grain, f);
      return;
    }
    count_ = count;
    grain_ = grain;
    call_ = &f;
    next_.store(0, std::memory_order_relaxed);
    busy_.store(static_cast<int>(threads_.size()), std::memory_order_relaxed);
    {
      // The lock orders this with a worker that is about to sleep.
      const std::lock_guard lock(mutex_);
      generation_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    run(0);
    for (int spin = 0; busy_.load(std::memory_order_acquire) != 0; ++spin)
      if (spin > spins_before_sleep) std::this_thread::yield();
  }

 private:
  struct no_workers {};
  explicit thread_pool(no_workers) {}

  static constexpr int spins_before_sleep = 2000;

  static bool& inside() {
    thread_local bool value = false;
    return value;
  }

  void run(int worker) {
    inside() = true;
    while (true) {
      const index_t begin = next_.fetch_add(grain_, std::memory_order_relaxed);
      if (begin >= count_) break;
      (*call_)(begin, std::min(begin + grain_, count_), worker);
    }
    inside() = false;
  }

  void work(int worker) {
    unsigned seen = 0;
    while (true) {
      for (int spin = 0; spin < spins_before_sleep && generation_.load(std::memory_order_acquire) == seen;
           ++spin) {
      }
      if (generation_.load(std::memory_order_acquire) == seen) {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [&, this] { return generation_.load(std::memory_order_acquire) != seen; });
      }
      seen = generation_.load(std::memory_order_acquire);
      if (stopping_.load(std::memory_order_acquire)) return;
      run(worker);
      busy_.fetch_sub(1, std::memory_order_release);
    }
  }

  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<bool> stopping_{false};
  std::atomic<unsigned> generation_{0};
  std::atomic<index_t> next_{0};
  std::atomic<int> busy_{0};
  index_t count_ = 0;
  index_t grain_ = 1;
  const chunk_function* call_ = nullptr;
};

static_assert(Executor<thread_pool>);

}  // namespace PESC_CPU_ABI
}  // namespace pesc::cpu
