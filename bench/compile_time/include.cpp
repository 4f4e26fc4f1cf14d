// SPDX-License-Identifier: Apache-2.0

#include "pesc/pesc.hpp"

int main() {}
