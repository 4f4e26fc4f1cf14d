// SPDX-License-Identifier: Apache-2.0
#include "pesc/pesc.hpp"
#include "tool/model_session.hpp"

namespace pesc::tool {

std::unique_ptr<session> make_sparse_bf16(cpu_backend& ctx, loaded_model<> model, std::uint64_t seed) {
  return std::make_unique<model_session<moe_layer<moe_dynamic<bf16>, cpu_backend>>>(ctx, std::move(model),
                                                                                    seed);
}

}  // namespace pesc::tool
