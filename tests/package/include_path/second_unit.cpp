// SPDX-License-Identifier: Apache-2.0
#include "pesc/pesc.hpp"

/// Linked beside layers.cpp: a function that a header forgets to mark inline is defined twice.
const char* version_of_second_unit() { return pesc::version_string; }
