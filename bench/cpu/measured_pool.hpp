// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "cpu/probes.hpp"
#include "pesc/cpu/thread_pool.hpp"

namespace bench {

/// \brief A thread pool that adds up the processor time that each worker spends inside chunks. Waiting for the other
/// workers is not counted, imbalance is: the time of a loop is that of its busiest worker.
class measured_pool {
 public:
  explicit measured_pool(int threads)
      : pool_(threads), workers_(static_cast<std::size_t>(pool_.concurrency())) {}

  [[nodiscard]] int concurrency() const { return pool_.concurrency(); }

  void parallel_for(index_t count, index_t grain, pesc::cpu::chunk_function f) {
    for (worker& w : workers_) w.seconds = 0;
    pool_.parallel_for(count, grain, [&](index_t begin, index_t end, int index) {
      const double start = thread_seconds();
      f(begin, end, index);
      workers_[static_cast<std::size_t>(index)].seconds += thread_seconds() - start;
    });
    double busiest = 0;
    for (const worker& w : workers_) busiest = std::max(busiest, w.seconds);
    seconds_ += busiest;
  }

  /// \brief Seconds of all loops since the last call.
  double take_seconds() { return std::exchange(seconds_, 0.0); }

 private:
  struct alignas(64) worker {
    double seconds = 0;
  };

  pesc::cpu::thread_pool pool_;
  std::vector<worker> workers_;
  double seconds_ = 0;
};

}  // namespace bench
