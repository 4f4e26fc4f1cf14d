// SPDX-License-Identifier: Apache-2.0
#include "pesc/quant/unquantized.hpp"

#include <string>

#include <doctest/doctest.h>

#include "pesc/quant/quantize.hpp"
#include "support/random.hpp"

namespace {

using namespace pesc;

TEST_CASE_TEMPLATE("numbers are kept as they are", T, float, bf16, f16) {
  CHECK(unquantized<T>::bits == 8 * static_cast<int>(sizeof(T)));
  CHECK(unquantized<T>::info().scales == scale_kind::none);
  const std::vector<float> values = support::normal_floats(3 * 70, 1);
  std::vector<T> x, y(values.size());
  for (const float v : values) x.push_back(from_float<T>(v));
  const auto m = quantize<unquantized<T>>(matrix_view<const T>{x.data(), 3, 70});
  CHECK(m.bytes() == 3 * 70 * static_cast<index_t>(sizeof(T)));
  dequantize(m.view(), matrix_view<T>{y.data(), 3, 70});
  for (std::size_t i = 0; i < x.size(); ++i) CHECK(y[i] == x[i]);
}

TEST_CASE("each element type has its name") {
  CHECK(std::string(unquantized<float>::info().name) == "float");
  CHECK(std::string(unquantized<bf16>::info().name) == "bf16");
  CHECK(std::string(unquantized<f16>::info().name) == "f16");
}

}  // namespace
