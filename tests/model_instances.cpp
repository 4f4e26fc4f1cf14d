// SPDX-License-Identifier: Apache-2.0
#include "pesc/io/instantiate.hpp"
