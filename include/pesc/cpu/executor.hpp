// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "pesc/core/function_ref.hpp"
#include "pesc/core/types.hpp"

namespace pesc::cpu {
inline namespace PESC_CPU_ABI {

/// \brief One chunk of a parallel loop: the range [begin, end) and the index of the worker that runs it.
using chunk_function = function_ref<void(index_t begin, index_t end, int worker)>;

/// \brief Runs the chunks of a loop, at once or one after another.
///
/// `parallel_for(count, grain, f)` cuts [0, count) into chunks of `grain` (the last may be shorter) and calls `f` once
/// for each, with a worker index below `concurrency()`. Chunks depend on `count` and `grain` alone, so results do not
/// depend on the number of threads. A call from inside a chunk runs its chunks inline, as worker 0 of its own.
template <class E>
concept Executor = requires(E& executor, index_t n, chunk_function f) {
  { executor.concurrency() } -> std::convertible_to<int>;
  executor.parallel_for(n, n, f);
};

/// \brief Runs everything on the calling thread.
struct inline_executor {
  static constexpr int concurrency() { return 1; }

  void parallel_for(index_t count, index_t grain, chunk_function f) const {
    for (index_t begin = 0; begin < count; begin += grain) f(begin, std::min(begin + grain, count), 0);
  }
};

static_assert(Executor<inline_executor>);

}  // namespace PESC_CPU_ABI
}  // namespace pesc::cpu
