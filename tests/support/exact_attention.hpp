// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <vector>

#include "pesc/nn/attention_types.hpp"
#include "support/reference.hpp"

namespace support {

/// \brief Results of attention by its definition, in double.
struct exact_attention {
  reference::matrix out, lse, dq, dk, dv;
};

/// \brief Softmax, output and gradients by their definitions, one query of one head at a time.
inline exact_attention attend(const reference::matrix& q, const reference::matrix& k,
                              const reference::matrix& v, const reference::matrix& dout,
                              const std::vector<pesc::attention_span>& spans,
                              const pesc::attention_shape& shape) {
  using pesc::index_t;
  using reference::matrix;
  exact_attention r{matrix(q.rows, q.cols), matrix(q.rows, shape.heads), matrix(q.rows, q.cols),
                    matrix(k.rows, k.cols), matrix(k.rows, k.cols)};
  const index_t size = shape.head_dim;
  const double scale = 1 / std::sqrt(static_cast<double>(size));
  for (const pesc::attention_span& span : spans)
    for (index_t t = span.query_begin; t < span.query_end; ++t)
      for (index_t h = 0; h < shape.heads; ++h) {
        const index_t keys = span.past + t - span.query_begin + 1;
        const index_t at = h * size, kv = h / (shape.heads / shape.kv_heads) * size;
        matrix scores(1, keys), dp(1, keys);
        for (index_t j = 0; j < keys; ++j)
          for (index_t c = 0; c < size; ++c) {
            scores[j] += scale * q(t, at + c) * k(span.key_begin + j, kv + c);
            dp[j] += dout(t, at + c) * v(span.key_begin + j, kv + c);
          }
        r.lse(t, h) = reference::log_sum_exp(scores.data(), keys);
        double mean = 0;
        for (index_t j = 0; j < keys; ++j) mean += std::exp(scores[j] - r.lse(t, h)) * dp[j];
        for (index_t j = 0; j < keys; ++j) {
          const double p = std::exp(scores[j] - r.lse(t, h));
          const double ds = p * (dp[j] - mean) * scale;
          const index_t key = span.key_begin + j;
          for (index_t c = 0; c < size; ++c) {
            r.out(t, at + c) += p * v(key, kv + c);
            r.dv(key, kv + c) += p * dout(t, at + c);
            r.dq(t, at + c) += ds * k(key, kv + c);
            r.dk(key, kv + c) += ds * q(t, at + c);
          }
        }
      }
  return r;
}

}  // namespace support
