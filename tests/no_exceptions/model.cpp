// SPDX-License-Identifier: Apache-2.0
// Instantiates the model library's templates in a second unit of the same program.

#include "pesc/model.hpp"

template class pesc::llama<pesc::moe_layer<pesc::moe_dynamic<>, pesc::cpu_backend>>;
