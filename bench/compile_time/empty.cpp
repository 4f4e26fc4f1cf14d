// SPDX-License-Identifier: Apache-2.0
// What the others are compared with: the largest header that the layers include.

#include <Eigen/Core>

int main() {}
