// SPDX-License-Identifier: Apache-2.0

// Kind quant4 on the CUDA backend.

#include "pesc/gpu/quantize.cuh"
#include "quant_case.hpp"

namespace golden::cuda {
namespace {

using pesc::cuda_backend;
using pesc::device_resource;

template <pesc::Scalar T>
void compare_kernels(cuda_backend& ctx, outcome& out, const any_matrix& stored) {
  const std::vector<T> expected = dequantized_as<T>(stored);
  const auto there = pesc::gpu::to_device(ctx, stored.view());
  const auto packed = pack(ctx, there.view());
  compare_kernel(ctx, out, there.view(), expected, "kernel dequant cuda");
  compare_kernel(ctx, out, packed.view(), expected, "kernel dequant of fragments cuda");
}

}  // namespace

void run_quant4(const golden_case& c, outcome& out) {
  cuda_backend ctx;
  const any_matrix stored = stored_quant4(c);
  with_elements(c, "input", [&]<class T>(const std::vector<T>& values) {
    placed<cuda_backend, T> weight(ctx, values);
    compare_quantized(c, out, stored, [&](const pesc::format_info& format, const float* offset) {
      pesc::quantized_matrix<pesc::any_format, pesc::row_blocks, device_resource> made(format, stored.rows(),
                                                                                       stored.cols());
      quantize(ctx, format, pesc::as_const(weight.matrix(stored.rows(), stored.cols())), made, offset);
      return pesc::gpu::to_host(ctx, made);
    });
  });
  compare_dequantized(c, out, stored);
  compare_unpacked(out, pesc::gpu::to_host(ctx, unpack(ctx, pack(ctx, stored.view()))), stored);
  compare_kernels<float>(ctx, out, stored);
  compare_kernels<pesc::bf16>(ctx, out, stored);
  compare_kernels<pesc::f16>(ctx, out, stored);
}

}  // namespace golden::cuda
