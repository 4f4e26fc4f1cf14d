// SPDX-License-Identifier: Apache-2.0
#include "pesc/core/workspace.hpp"

#include <doctest/doctest.h>

#include "pesc/core/buffer.hpp"
#include "support/message_of.hpp"

namespace {

using namespace pesc;

/// Takes nested scratch the way operations do.
void carve(workspace<>& ws) {
  const auto kept = ws.take<float>(10);
  {
    const workspace<>::scope scope(ws);
    const auto large = ws.take<double>(100);
    const auto matrix = ws.take<float>(3, 5);
    if (!ws.counting()) {
      CHECK(static_cast<void*>(large.data) != static_cast<void*>(kept.data));
      CHECK(reinterpret_cast<std::uintptr_t>(matrix.data) % 64 == 0);
      CHECK(matrix.stride == 5);
    }
  }
  const auto after = ws.take<float>(1);
  if (!ws.counting()) CHECK(after.data == kept.data + 16);
}

TEST_CASE("counting gives exactly the bytes that carving needs") {
  workspace<> counting;
  carve(counting);
  CHECK(counting.counting());
  CHECK(counting.peak() == 64 + 832 + 64);
  buffer<std::byte> memory(counting.peak());
  workspace<> ws(memory.data(), memory.size());
  carve(ws);
  CHECK(ws.peak() == counting.peak());
}

TEST_CASE("a counting workspace remembers sizes and hands out nothing") {
  workspace<> ws;
  const auto v = ws.take<float>(7);
  CHECK(v.data == nullptr);
  CHECK(v.size == 7);
  const auto m = ws.take<float>(2, 3);
  CHECK(m.rows == 2);
  CHECK(m.cols == 3);
}

TEST_CASE("too little memory is named with what is needed") {
  buffer<std::byte> memory(128);
  workspace<> ws(memory.data(), 128);
  const std::string message = support::message_of<shape_error>([&] { carve(ws); });
  CHECK(support::contains(message, "128"));
  CHECK(support::contains(message, "896"));
}

}  // namespace
