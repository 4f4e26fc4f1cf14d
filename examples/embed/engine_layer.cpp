// SPDX-License-Identifier: Apache-2.0

#include "engine_layer.hpp"

template class pesc::moe_layer<engine_config, pesc::cpu_backend>;
