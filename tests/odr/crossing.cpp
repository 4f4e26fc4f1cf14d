// SPDX-License-Identifier: Apache-2.0
#include "pesc/pesc.hpp"

/// Defined in unit_base.cpp, which is built with other flags: its context is another type, and this does not link.
const char* pass_context(pesc::cpu_backend& ctx);

int main() {
  pesc::cpu_backend ctx;
  return pass_context(ctx) != nullptr ? 0 : 1;
}
