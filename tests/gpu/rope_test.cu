// SPDX-License-Identifier: Apache-2.0
#include "gpu/device_tensor.hpp"
#include "pesc/gpu/rope.cuh"
#include "support/reference_attention.hpp"

namespace {

using namespace pesc;
using support::device_tensor;
using support::placement;

TEST_SUITE("gpu/rope") {
  TEST_CASE("rope turns pairs of both kinds like double precision, and back") {
    cuda_backend ctx;
    for (const index_t size : {2, 6, 8, 12, 64, 256})
      for (const bool halves : {false, true})
        for (const placement where : support::placements) {
          CAPTURE(size);
          CAPTURE(halves);
          const index_t heads = 3, rows = 21;
          const auto q = support::normal_floats(rows * heads * size, 1);
          std::vector<std::int32_t> positions;
          reference::list<index_t> exact_positions;
          for (index_t t = 0; t < rows; ++t) {
            positions.push_back(static_cast<std::int32_t>(t * 37 % 500));
            exact_positions.push_back(t * 37 % 500);
          }
          std::vector<float> frequencies(static_cast<std::size_t>(size / 2));
          rope_frequencies({}, size, vector_view<float>{frequencies.data(), size / 2});
          support::on_device<float> inv_freq(ctx, frequencies);
          support::on_device<std::int32_t> at(ctx, positions);
          reference::rope_options options;
          options.pairs = halves ? reference::rope_pairs::halves : reference::rope_pairs::neighbours;
          const rope_pairing pairing = halves ? rope_pairing::halves : rope_pairing::neighbours;
          device_tensor y(ctx, rows, heads * size, q, where);
          rope(ctx, y.view(), as_const(at.view()), as_const(inv_freq.view()), pairing, 1.0f);
          const auto expected =
              reference::rope(support::exact(rows, heads * size, q), size, exact_positions, options);
          // Positions to 500 leave the float angle an error of 500 * 2^-24.
          CHECK(support::near(y.values(), expected.values, 6e-5));
          CHECK(y.gaps_kept());
          rope(ctx, y.view(), as_const(at.view()), as_const(inv_freq.view()), pairing, -1.0f);
          CHECK(support::near(y.values(), q, 1e-6));
        }
  }

  TEST_CASE("angles of any size are reduced exactly") {
    cuda_backend ctx;
    const std::vector<std::int32_t> positions = {0, 3, 1000, 131071, 1048575, 2000000000};
    const auto rows = static_cast<index_t>(positions.size());
    std::vector<float> values;
    std::vector<double> expected;
    for (const std::int32_t position : positions) {
      values.insert(values.end(), {1.0f, 0.0f});
      const auto angle = static_cast<double>(static_cast<float>(position) * 0.75f);
      expected.insert(expected.end(), {std::cos(angle), std::sin(angle)});
    }
    device_tensor q(ctx, rows, 2, values);
    support::on_device<std::int32_t> at(ctx, positions);
    support::on_device<float> inv_freq(ctx, std::vector<float>{0.75f});
    rope(ctx, q.view(), as_const(at.view()), as_const(inv_freq.view()), rope_pairing::halves, 1.0f);
    CHECK(support::near(q.values(), expected, 3e-7));
  }

  TEST_CASE("rope at position 0 changes nothing, and neither do no rows") {
    cuda_backend ctx;
    const auto values = support::normal_floats(32, 2);
    device_tensor q(ctx, 2, 16, values);
    support::on_device<std::int32_t> at(ctx, 2);
    support::on_device<float> inv_freq(ctx, std::vector<float>{1.0f, 0.5f});
    rope(ctx, q.view(), as_const(at.view()), as_const(inv_freq.view()), rope_pairing::halves, 1.0f);
    rope(ctx, {}, {}, as_const(inv_freq.view()), rope_pairing::halves, 1.0f);
    CHECK(q.values() == values);
  }
}

}  // namespace
