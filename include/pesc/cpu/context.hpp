// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <utility>

#include "pesc/core/buffer.hpp"
#include "pesc/cpu/executor.hpp"
#include "pesc/cpu/isa.hpp"
#include "pesc/cpu/thread_pool.hpp"

namespace pesc {
namespace cpu {
inline namespace PESC_CPU_ABI {

/// \brief What the operations of the CPU backend run on: workers and an instruction set. Holds no model state.
///
/// Used by one thread at a time; layers may share it in sequence.
template <Executor Pool = thread_pool, IsaPolicy Isa = runtime_isa>
class context {
 public:
  using memory_space = host_space;

  context() = default;

  /// \brief With a number of threads (0: all) and an instruction set.
  explicit context(int threads, Isa isa_policy = {}) requires std::is_constructible_v<Pool, int>
      : pool_(threads), isa_{isa_policy} {
    check();
  }

  /// \throws shape_error when this processor lacks the instruction set
  explicit context(isa level) requires std::same_as<Isa, runtime_isa> : isa_{level} { check(); }

  explicit context(Pool pool, Isa isa_policy = {}) requires std::is_move_constructible_v<Pool>
      : pool_(std::move(pool)), isa_{isa_policy} {
    check();
  }

  context(const context&) = delete;
  context& operator=(const context&) = delete;

  [[nodiscard]] Pool& executor() { return pool_; }
  [[nodiscard]] const Isa& isa_policy() const { return isa_; }
  [[nodiscard]] isa level() const { return isa_.value(); }
  [[nodiscard]] static host_resource resource() { return {}; }
  static void synchronize() {}

 private:
  void check() const {
    PESC_EXPECTS(level() <= detect_isa(), "instruction set ", name_of(level()),
                 " asked for, this processor has ", name_of(detect_isa()));
  }

  [[no_unique_address]] Pool pool_{};
  [[no_unique_address]] Isa isa_{};
};

}  // namespace PESC_CPU_ABI
}  // namespace cpu

/// \brief The CPU backend with its own threads and the instruction set of the processor.
using cpu_backend = cpu::context<>;

}  // namespace pesc
