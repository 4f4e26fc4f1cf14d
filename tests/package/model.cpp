// SPDX-License-Identifier: Apache-2.0
#include "pesc/model.hpp"

#include <cstdio>
#include <span>
#include <string>

#include "pesc/pesc.hpp"

int main() {
  const std::string text = "a mixture of experts";
  const auto sum = pesc::checksum(std::as_bytes(std::span{text}));
  std::printf("pesc %s: checksum %s\n", pesc::version_string, pesc::checksum_text(sum).c_str());
  return pesc::is_valid_utf8(text) && !pesc::is_valid_utf8("\xff") ? 0 : 1;
}
