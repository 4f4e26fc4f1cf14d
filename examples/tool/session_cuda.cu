// SPDX-License-Identifier: Apache-2.0
#include "pesc/cuda.cuh"
#include "tool/model_session.hpp"

namespace pesc::tool {
namespace {

template <class C>
std::unique_ptr<session> make(loaded_model<> model, std::uint64_t seed) {
  auto ctx = std::make_unique<cuda_backend>();
  if (model.sparse())
    return make_model_session<moe_layer<moe_dynamic<C>, cuda_backend>>(std::move(ctx), std::move(model),
                                                                       seed);
  return make_model_session<dense_layer<moe_dynamic<C>, cuda_backend>>(std::move(ctx), std::move(model),
                                                                       seed);
}

}  // namespace

std::unique_ptr<session> make_cuda(const machine& m, loaded_model<> model, std::uint64_t seed) {
  return m.compute == "bf16" ? make<bf16>(std::move(model), seed) : make<float>(std::move(model), seed);
}

}  // namespace pesc::tool
