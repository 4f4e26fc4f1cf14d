// SPDX-License-Identifier: Apache-2.0
#pragma once

// One function per unit, each built for another machine: what a product of the unit's own context gives.
float run_base();
float run_avx2();
float run_avx512();
