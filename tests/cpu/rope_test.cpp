// SPDX-License-Identifier: Apache-2.0
#include "pesc/cpu/rope.hpp"

#include "cpu/op_test.hpp"

namespace {

using namespace pesc;
using support::tensor;

TEST_CASE("rope turns pairs of both kinds like double precision, and back") {
  for (const index_t size : {2, 8, 12, 64, 256})
    for (const bool halves : {false, true}) {
      CAPTURE(size);
      CAPTURE(halves);
      const index_t heads = 3, rows = 21;
      const tensor q = tensor::random(rows, heads * size, 1);
      std::vector<std::int32_t> positions;
      reference::list<index_t> exact_positions;
      for (index_t t = 0; t < rows; ++t) {
        positions.push_back(static_cast<std::int32_t>(t * 37 % 500));
        exact_positions.push_back(t * 37 % 500);
      }
      std::vector<float> frequencies(static_cast<std::size_t>(size / 2));
      rope_frequencies({}, size, vector_view<float>{frequencies.data(), size / 2});
      const vector_view<const float> inv_freq(frequencies.data(), size / 2);
      const vector_view<const std::int32_t> where(positions.data(), rows);
      reference::rope_options options;
      options.pairs = halves ? reference::rope_pairs::halves : reference::rope_pairs::neighbours;
      const rope_pairing pairing = halves ? rope_pairing::halves : rope_pairing::neighbours;
      // Positions to 500 leave the float angle an error of 500 * 2^-24.
      support::check_on_every_context(
          [&](cpu_backend& ctx) {
            tensor y = q;
            rope(ctx, y.view(), where, inv_freq, pairing, 1.0f);
            CHECK(y.gaps_kept());
            tensor back = y;
            rope(ctx, back.view(), where, inv_freq, pairing, -1.0f);
            CHECK(support::near(back.values(), q.values(), 1e-6));
            return y.values();
          },
          reference::rope(q.exact(), size, exact_positions, options).values, 6e-5);
    }
}

TEST_CASE("rope at position 0 changes nothing") {
  const tensor q = tensor::random(2, 16, 2);
  const std::vector<std::int32_t> positions(2, 0);
  const std::vector<float> frequencies = {1.0f, 0.5f};
  support::on_every_context(
      [&](cpu_backend& ctx) {
        tensor y = q;
        rope(ctx, y.view(), vector_view<const std::int32_t>{positions.data(), 2},
             vector_view<const float>{frequencies.data(), 2}, rope_pairing::halves, 1.0f);
        return y.values();
      },
      [&](const std::vector<float>& y) { CHECK(y == q.values()); });
}

}  // namespace
