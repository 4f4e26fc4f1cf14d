// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <cstdio>

#include "odr/units.hpp"

int main() {
  const float base = run_base();
  int failures = base > 0.0f ? 0 : 1;
  const auto compare = [&](const char* name, bool can_run, float (*run)()) {
    if (!can_run) {
      std::printf("%s: not run, this processor lacks it\n", name);
      return;
    }
    const float other = run();
    const bool equal = std::fabs(other - base) <= 1e-4f * base;
    std::printf("%s: %g, base: %g%s\n", name, static_cast<double>(other), static_cast<double>(base),
                equal ? "" : " DIFFERENT");
    if (!equal) ++failures;
  };

  __builtin_cpu_init();
  const bool avx2 =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  compare("avx2", avx2, run_avx2);
  compare("avx512", avx512, run_avx512);
  return failures;
}
