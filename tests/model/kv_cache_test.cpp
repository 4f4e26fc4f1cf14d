// SPDX-License-Identifier: Apache-2.0
#include "pesc/model/kv_cache.hpp"

#include <doctest/doctest.h>

TEST_SUITE("model/kv_cache") {
  TEST_CASE("layers have rows of their own, and clearing forgets the tokens but keeps the memory") {
    const pesc::llama_shape shape{.vocabulary = 4,
                                  .hidden = 8,
                                  .intermediate = 8,
                                  .layers = 3,
                                  .heads = 4,
                                  .kv_heads = 2,
                                  .head_dim = 2};
    pesc::kv_cache cache(shape, 5);
    CHECK(cache.capacity() == 5);
    for (pesc::index_t l = 0; l < 3; ++l)
      for (pesc::index_t r = 0; r < 5; ++r)
        for (pesc::index_t c = 0; c < 4; ++c) {
          cache.keys(l)(r, c) = static_cast<float>(100 * l + 10 * r + c);
          cache.values(l)(r, c) = -cache.keys(l)(r, c);
        }
    CHECK(cache.keys(2)(4, 3) == 243.0f);
    CHECK(cache.values(1)(0, 0) == -100.0f);
    CHECK(cache.keys(0)(4, 3) == 43.0f);
    cache.advance(3);
    CHECK(cache.size() == 3);
    cache.clear();
    CHECK(cache.size() == 0);
    CHECK(cache.capacity() == 5);
  }
}
