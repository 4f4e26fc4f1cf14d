// SPDX-License-Identifier: Apache-2.0
#include "pesc/nn/rope.hpp"

#include <vector>

#include <doctest/doctest.h>

#include "support/message_of.hpp"
#include "support/near.hpp"
#include "support/reference_attention.hpp"

namespace {

using namespace pesc;

std::vector<float> frequencies(const rope_options& options, index_t head_dim) {
  std::vector<float> out(static_cast<std::size_t>(head_dim / 2));
  rope_frequencies(options, head_dim, vector_view<float>{out.data(), head_dim / 2});
  return out;
}

TEST_CASE("frequencies of every kind of scaling agree with double precision") {
  for (const index_t head_dim : {2, 8, 12, 64, 128})
    for (const rope_scaling scaling : {rope_scaling::none, rope_scaling::linear, rope_scaling::llama3})
      for (const double theta : {1e4, 5e5}) {
        CAPTURE(head_dim);
        rope_options options;
        options.scaling = scaling;
        options.theta = theta;
        options.factor = 8;
        options.original_positions = 256;
        reference::rope_options exact;
        exact.scaling = scaling == rope_scaling::none     ? reference::rope_scaling::none
                        : scaling == rope_scaling::linear ? reference::rope_scaling::linear
                                                          : reference::rope_scaling::llama3;
        exact.theta = theta;
        exact.factor = 8;
        exact.original_positions = 256;
        const std::vector<float> found = frequencies(options, head_dim);
        const reference::matrix expected = reference::rope_frequencies(head_dim, exact);
        for (index_t i = 0; i < head_dim / 2; ++i)
          CHECK(static_cast<double>(found[static_cast<std::size_t>(i)]) ==
                doctest::Approx(expected[i]).epsilon(1e-6));
      }
}

TEST_CASE("fast pairs keep their frequency under llama3, slow ones are divided by the factor") {
  rope_options options;
  options.theta = 5e5;
  const std::vector<float> plain = frequencies(options, 64);
  options.scaling = rope_scaling::llama3;
  options.factor = 32;
  const std::vector<float> scaled = frequencies(options, 64);
  CHECK(scaled.front() == plain.front());
  CHECK(scaled.back() == doctest::Approx(plain.back() / 32));
  for (std::size_t i = 1; i < scaled.size(); ++i) CHECK(scaled[i] < scaled[i - 1]);
}

TEST_CASE("an odd head size is refused") {
  CHECK(support::contains(support::message_of<shape_error>([] { frequencies({}, 7); }), "7"));
}

}  // namespace
