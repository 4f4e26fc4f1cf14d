// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/core/types.hpp"

namespace pesc {

/// \brief Query rows that see one run of keys: query i sees key_begin .. key_begin + past + (i -
/// query_begin).
///
/// Training: key_begin == query_begin and past == 0. Decoding with a cache: `past` keys came before the first
/// query.
struct attention_span {
  index_t query_begin = 0;
  index_t query_end = 0;
  index_t key_begin = 0;
  index_t past = 0;
};

/// \brief Heads of queries, heads of keys and values (a divisor of `heads`), and the size of each.
struct attention_shape {
  index_t heads = 0;
  index_t kv_heads = 0;
  index_t head_dim = 0;
};

}  // namespace pesc
