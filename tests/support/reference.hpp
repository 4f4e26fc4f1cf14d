// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "support/reference_attention.hpp"
#include "support/reference_balance.hpp"
#include "support/reference_layer.hpp"
#include "support/reference_matrix.hpp"
#include "support/reference_model.hpp"
#include "support/reference_ops.hpp"
#include "support/reference_optimizer.hpp"
#include "support/reference_quant.hpp"
#include "support/reference_router.hpp"
