// SPDX-License-Identifier: Apache-2.0
#include "pesc/pesc.hpp"
#include "tool/model_session.hpp"

namespace pesc::tool {

std::unique_ptr<session> make_dense_float(cpu_backend& ctx, loaded_model<> model, std::uint64_t seed) {
  return std::make_unique<model_session<dense_layer<moe_dynamic<float>, cpu_backend>>>(ctx, std::move(model),
                                                                                       seed);
}

}  // namespace pesc::tool
