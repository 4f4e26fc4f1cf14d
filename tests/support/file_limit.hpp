// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <csignal>

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pesc/core/error.hpp"
#include "support/message_of.hpp"

namespace support {

/// \brief Runs `action` in a child process in which no file may grow beyond `limit` bytes, which fails a write as a full disk
/// does.
/// \returns 0 when it ended in the error of a write that failed, another number or a negative one otherwise
template <class Action>
int write_with_limit(rlim_t limit, Action&& action) {
  const pid_t child = ::fork();
  if (child < 0) return -1;
  if (child == 0) {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit bound{limit, limit};
    ::setrlimit(RLIMIT_FSIZE, &bound);
    int result = 3;
    try {
      action();
    } catch (const pesc::io_error& e) {
      result = contains(e.what(), "cannot be written: ") ? 0 : 4;
    }
    ::_exit(result);
  }
  int status = 0;
  if (::waitpid(child, &status, 0) != child || !WIFEXITED(status)) return -2;
  return WEXITSTATUS(status);
}

}  // namespace support
