// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <csignal>

#include <unistd.h>

namespace pesc::tool {

/// \brief While it lives, the first Ctrl-C (or SIGTERM) only asks to stop; the second ends the program with status 130.
class stop_signal {
 public:
  stop_signal() {
    asked() = 0;
    old_interrupt_ = std::signal(SIGINT, &handle);
    old_terminate_ = std::signal(SIGTERM, &handle);
  }
  stop_signal(const stop_signal&) = delete;
  stop_signal& operator=(const stop_signal&) = delete;
  ~stop_signal() {
    std::signal(SIGINT, old_interrupt_);
    std::signal(SIGTERM, old_terminate_);
  }

  [[nodiscard]] static bool requested() { return asked() != 0; }

 private:
  static volatile std::sig_atomic_t& asked() {
    static volatile std::sig_atomic_t value = 0;
    return value;
  }

  static void handle(int) {
    if (asked() != 0) ::_exit(130);
    asked() = 1;
    constexpr char text[] = "\npesc: finishing this step, then saving; once more to leave at once\n";
    [[maybe_unused]] const auto written = ::write(2, text, sizeof text - 1);
  }

  using handler = void (*)(int);
  handler old_interrupt_ = SIG_DFL;
  handler old_terminate_ = SIG_DFL;
};

}  // namespace pesc::tool
