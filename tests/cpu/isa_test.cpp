// SPDX-License-Identifier: Apache-2.0
#include "pesc/cpu/isa.hpp"

#include <string>

#include <doctest/doctest.h>

#include "support/host_isas.hpp"

namespace {

using namespace pesc::cpu;

TEST_CASE("instruction sets have names and an order") {
  CHECK(std::string(name_of(isa::scalar)) == "scalar");
  CHECK(std::string(name_of(isa::avx2)) == "avx2");
  CHECK(std::string(name_of(isa::avx512)) == "avx512");
  CHECK(std::string(name_of(isa::avx512_bf16)) == "avx512_bf16");
  CHECK(isa::scalar < isa::avx2);
  CHECK(isa::avx512 < isa::avx512_bf16);
}

TEST_CASE("policies give their level, a fixed one at compile time") {
  CHECK(runtime_isa{}.value() == detect_isa());
  CHECK(runtime_isa{isa::scalar}.value() == isa::scalar);
  static_assert(fixed_isa<isa::avx512>::value() == isa::avx512);
  static_assert(!IsaPolicy<int>);
  CHECK(support::host_isas().front() == isa::scalar);
  CHECK(support::host_isas().back() == detect_isa());
}

}  // namespace
