// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/core/error.hpp"
#include "pesc/nn/attention_types.hpp"
#include "pesc/nn/rope.hpp"

namespace pesc {

/// \brief Sizes and constants of a Llama-type decoder that its computation needs.
struct llama_shape {
  index_t vocabulary = 0;
  index_t hidden = 0;
  index_t intermediate = 0;
  index_t layers = 0;
  index_t heads = 0;
  index_t kv_heads = 0;
  index_t head_dim = 0;  ///< usually hidden / heads, but free
  float rms_epsilon = 1e-5f;
  rope_options rope{};

  [[nodiscard]] attention_shape attention() const { return {heads, kv_heads, head_dim}; }
  [[nodiscard]] index_t query_width() const { return heads * head_dim; }
  [[nodiscard]] index_t kv_width() const { return kv_heads * head_dim; }

  /// \throws shape_error naming the size that is out of range
  void check() const {
    PESC_EXPECTS(vocabulary > 0 && hidden > 0 && intermediate > 0 && layers > 0 && layers < 65536,
                 "model of ", vocabulary, " pieces, hidden size ", hidden, ", intermediate size ",
                 intermediate, ", ", layers,
                 " layers: every size must be positive, and at most 65535 layers");
    PESC_EXPECTS(heads > 0 && kv_heads > 0 && heads % kv_heads == 0, "model of ", heads, " heads and ",
                 kv_heads, " key-value heads: the first must be a multiple of the second");
    PESC_EXPECTS(head_dim > 0 && head_dim % 2 == 0, "head size ", head_dim, ": must be even and positive");
  }
};

}  // namespace pesc
