// SPDX-License-Identifier: Apache-2.0
#include <cstdio>

#include "pesc/model.hpp"
#include "pesc/pesc.hpp"

int main() {
  std::printf("pesc %s with its model library\n", pesc::version_string);
  return 0;
}
