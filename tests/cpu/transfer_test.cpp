// SPDX-License-Identifier: Apache-2.0
#include "pesc/cpu/transfer.hpp"

#include <vector>

#include <doctest/doctest.h>

#include "pesc/quant/nf4.hpp"
#include "pesc/quant/quantize.hpp"
#include "support/message_of.hpp"
#include "support/random.hpp"

namespace {

using namespace pesc;

TEST_CASE("upload and download copy, and refuse other sizes") {
  cpu_backend ctx(1);
  const std::vector<float> from{1, 2, 3};
  std::vector<float> there(3), back(3);
  upload(ctx, vector_view<const float>{from.data(), 3}, vector_view<float>{there.data(), 3});
  download(ctx, vector_view<const float>{there.data(), 3}, vector_view<float>{back.data(), 3});
  CHECK(back == from);
  CHECK(support::message_of<shape_error>([&] {
          upload(ctx, vector_view<const float>{from.data(), 3}, vector_view<float>{there.data(), 2});
        }) == "upload of 3 elements to 2");
  CHECK(support::message_of<shape_error>([&] {
          download(ctx, vector_view<const float>{there.data(), 2}, vector_view<float>{back.data(), 3});
        }) == "download of 2 elements to 3");
}

TEST_CASE("pack gives the bytes of the function without a context") {
  cpu_backend ctx(1);
  const auto values = support::normal_floats(70 * 130, 1);
  const auto q = quantize<nf4<>>(matrix_view<const float>(values.data(), 70, 130));
  const auto a = pack(ctx, q.view());
  const auto b = pesc::pack(q.view());
  CHECK(std::vector(a.codes().begin(), a.codes().end()) == std::vector(b.codes().begin(), b.codes().end()));
}

}  // namespace
