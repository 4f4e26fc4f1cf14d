// SPDX-License-Identifier: Apache-2.0
#include "pesc/cpu/instantiate.hpp"
#include "pesc/io/instantiate.hpp"
