// SPDX-License-Identifier: Apache-2.0
#include "pesc/core/mirrored_buffer.hpp"

#include <doctest/doctest.h>

namespace {

using namespace pesc;

/// \brief Memory that only transfers reach, as a device's.
struct far_space {};
struct far_resource : host_resource {
  using memory_space = far_space;
};
struct far_context {
  int transfers = 0;
};

template <class T>
void upload(far_context& ctx, vector_view<const T> host, vector_view<T, far_space> backend) {
  ++ctx.transfers;
  std::copy_n(host.data, host.size, backend.data);
}
template <class T>
void download(far_context& ctx, vector_view<const T, far_space> backend, vector_view<T> host) {
  ++ctx.transfers;
  std::copy_n(backend.data, backend.size, host.data);
}

TEST_CASE("host memory is its own mirror") {
  mirrored_buffer<float> list(3);
  int ctx = 0;
  list.view()[1] = 5.0f;
  CHECK(list.read(ctx).data == list.view().data);
  CHECK(list.last_read()[1] == 5.0f);
  list.clear(ctx);
  CHECK(list.last_read()[1] == 0.0f);
  CHECK(list.size() == 3);
}

TEST_CASE("other memory is read when it is asked for, and not before") {
  mirrored_buffer<float, far_resource> list(4);
  far_context ctx;
  list.clear(ctx);
  CHECK(ctx.transfers == 1);
  list.view().data[2] = 7.0f;
  CHECK(list.last_read()[2] == 0.0f);
  CHECK(list.read(ctx)[2] == 7.0f);
  CHECK(list.last_read()[2] == 7.0f);
  CHECK(ctx.transfers == 2);
  list.clear(ctx);
  CHECK(list.read(ctx)[2] == 0.0f);
}

TEST_CASE("an empty list has nothing to move") {
  mirrored_buffer<double> none;
  int ctx = 0;
  CHECK(none.read(ctx).empty());
  CHECK(none.size() == 0);
}

}  // namespace
