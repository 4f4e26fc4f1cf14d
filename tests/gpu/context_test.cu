// SPDX-License-Identifier: Apache-2.0

#include <doctest/doctest.h>

#include "gpu/device.hpp"
#include "pesc/gpu/launch.cuh"

namespace {

__global__ void twice_kernel(pesc::vector_view<float, pesc::device_space> x) {
  const pesc::index_t i = blockIdx.x * pesc::index_t{blockDim.x} + threadIdx.x;
  if (i < x.size) x[i] *= 2.0f;
}

TEST_SUITE("gpu/context") {
  TEST_CASE("a launch works in stream order between upload and download") {
    pesc::cuda_backend ctx;
    support::on_device<float> x(ctx, {1, 2, 3});
    pesc::gpu::launch(ctx, "twice_kernel", twice_kernel, pesc::gpu::grid_1d(3), x.view());
    CHECK(x.values() == std::vector<float>{2, 4, 6});
  }

  TEST_CASE("new device memory holds zeros") {
    pesc::cuda_backend ctx;
    CHECK(support::on_device<float>(ctx, 5).values() == std::vector<float>(5, 0.0f));
  }

  TEST_CASE("shared memory beyond the device is refused before the launch, with both numbers") {
    pesc::cuda_backend ctx;
    pesc::gpu::launch_shape shape = pesc::gpu::grid_1d(1);
    shape.shared_bytes = 1 << 24;
    support::on_device<float> x(ctx, 1);
    try {
      pesc::gpu::launch(ctx, "twice_kernel", twice_kernel, shape, x.view());
      FAIL("launched");
    } catch (const pesc::shape_error& e) {
      CHECK(std::string(e.what()).find("twice_kernel needs 16777216 bytes") != std::string::npos);
    }
  }

  TEST_CASE("a failed allocation says how much was asked for and leaves the context usable") {
    pesc::cuda_backend ctx;
    CHECK_THROWS_AS(pesc::device_buffer<float>(pesc::index_t{1} << 44), pesc::cuda_error);
    support::on_device<float> x(ctx, std::vector<float>{1.5f});
    pesc::gpu::launch(ctx, "twice_kernel", twice_kernel, pesc::gpu::grid_1d(1), x.view());
    CHECK(x.values() == std::vector<float>{3.0f});
  }
}

}  // namespace
