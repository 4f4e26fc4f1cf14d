// SPDX-License-Identifier: Apache-2.0
#include "pesc/pesc.hpp"
#include "tool/model_session.hpp"

namespace pesc::tool {

std::unique_ptr<session> make_sparse_float(const machine& m, loaded_model<> model, std::uint64_t seed) {
  return make_model_session<moe_layer<moe_dynamic<float>, cpu_backend>>(
      std::make_unique<cpu_backend>(m.threads, cpu::runtime_isa{instruction_set(m)}), std::move(model), seed);
}

}  // namespace pesc::tool
