// SPDX-License-Identifier: Apache-2.0
#include "pesc/cpu/thread_pool.hpp"

#include <chrono>
#include <fstream>
#include <set>

#include <doctest/doctest.h>
#if defined(__linux__)
#include <system_error>

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

namespace {

using namespace pesc;

TEST_CASE("every chunk runs once, whatever the number of threads") {
  for (const int threads : {1, 2, 3, 8, 17}) {
    cpu::thread_pool pool(threads);
    CHECK(pool.concurrency() == threads);
    for (const index_t count : {0, 1, 2, 7, 64, 1000})
      for (const index_t grain : {1, 3, 64, 5000}) {
        std::vector<std::atomic<int>> calls(static_cast<std::size_t>(count));
        std::atomic<bool> good{true};
        pool.parallel_for(count, grain, [&](index_t begin, index_t end, int worker) {
          if (begin % grain != 0 || end - begin > grain || (end != count && end - begin != grain))
            good = false;
          if (worker < 0 || worker >= threads) good = false;
          for (index_t i = begin; i < end; ++i) ++calls[static_cast<std::size_t>(i)];
        });
        CHECK(good);
        bool once = true;
        for (const auto& c : calls) once &= c == 1;
        CHECK(once);
      }
  }
}

TEST_CASE("no two chunks run at the same time under one worker index") {
  cpu::thread_pool pool(8);
  std::vector<std::atomic<int>> busy(8);
  std::atomic<bool> shared{false};
  for (int round = 0; round < 200; ++round)
    pool.parallel_for(64, 1, [&](index_t, index_t, int worker) {
      if (busy[static_cast<std::size_t>(worker)].fetch_add(1) != 0) shared = true;
      busy[static_cast<std::size_t>(worker)].fetch_sub(1);
    });
  CHECK_FALSE(shared);
}

TEST_CASE("a call from inside a chunk runs inline") {
  cpu::thread_pool pool(4);
  std::atomic<index_t> sum{0};
  pool.parallel_for(16, 1, [&](index_t outer, index_t, int) {
    const auto self = std::this_thread::get_id();
    pool.parallel_for(10, 2, [&](index_t begin, index_t end, int worker) {
      if (std::this_thread::get_id() != self || worker != 0) sum -= 1000000;
      for (index_t i = begin; i < end; ++i) sum += outer * i;
    });
  });
  CHECK(sum == 120 * 45);
}

TEST_CASE("a pool survives pauses, bursts and its own end") {
  for (int round = 0; round < 20; ++round) {
    cpu::thread_pool pool(3);
    std::atomic<int> calls{0};
    for (int burst = 0; burst < 3; ++burst) {
      for (int i = 0; i < 50; ++i) pool.parallel_for(7, 1, [&](index_t, index_t, int) { ++calls; });
      // Long enough for workers to fall asleep.
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    CHECK(calls == 3 * 50 * 7);
  }
  cpu::thread_pool unused(5);
  CHECK(cpu::thread_pool(0).concurrency() >= 1);
}

TEST_CASE("two pools work side by side") {
  std::atomic<index_t> sum{0};
  const auto work = [&] {
    cpu::thread_pool pool(2);
    for (int i = 0; i < 100; ++i)
      pool.parallel_for(10, 1, [&](index_t begin, index_t, int) { sum += begin; });
  };
  std::thread other(work);
  work();
  other.join();
  CHECK(sum == 2 * 100 * 45);
}

// Sanitizers need more address space than the limit leaves.
#if defined(__linux__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && \
    !defined(__clang__)
TEST_CASE("a thread that the system refuses is an exception, and ends those that started") {
  const pid_t child = fork();
  if (child == 0) {
    unsigned long pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    const rlim_t most = pages * static_cast<rlim_t>(sysconf(_SC_PAGESIZE)) + (rlim_t{256} << 20);
    const rlimit limit{most, most};
    int status = pages > 0 && setrlimit(RLIMIT_AS, &limit) == 0 ? 1 : 2;
    try {
      cpu::thread_pool pool(512);  // of 8 MiB of stack each
    } catch (const std::system_error&) {
      status = 0;
    }
    _exit(status);
  }
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}
#endif

}  // namespace
