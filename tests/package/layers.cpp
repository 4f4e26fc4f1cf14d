// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <cstdio>

#include "pesc/pesc.hpp"

int main() {
  static_assert(PESC_VERSION >= 100);
  pesc::cpu_backend ctx;
  const auto info = pesc::nf4<>::info();
  const auto code = info.encode(0.6f);
  std::printf("pesc %s on %s: 0.6 is stored as %g\n", pesc::version_string, pesc::cpu::name_of(ctx.level()),
              static_cast<double>(info.levels[code]));
  return std::fabs(info.levels[code] - 0.6f) < 0.1f ? 0 : 1;
}
