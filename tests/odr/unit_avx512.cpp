// SPDX-License-Identifier: Apache-2.0
#include "odr/layer_sum.hpp"
#include "odr/units.hpp"

float run_avx512() { return layer_sum(); }
