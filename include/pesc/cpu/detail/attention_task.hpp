// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/core/types.hpp"

namespace pesc::cpu {
inline namespace PESC_CPU_ABI {
namespace detail {

/// \brief The queries of one span that share one head of keys and values.
///
/// An *item* is one query of one head: item i is head i % share of row i / share. Pointers stand at the first
/// row of the span and the first column of the head (of queries: the first of the heads that share it).
struct attention_task {
  const float* q;
  const float* k;
  const float* v;
  index_t q_stride, k_stride, v_stride;
  float* out;
  float* lse;
  index_t out_stride, lse_stride;
  index_t head_dim, share, past;
  float scale;

  [[nodiscard]] index_t query(index_t item) const {
    return item / share * q_stride + item % share * head_dim;
  }
  [[nodiscard]] index_t output(index_t item) const {
    return item / share * out_stride + item % share * head_dim;
  }
  [[nodiscard]] index_t statistic(index_t item) const { return item / share * lse_stride + item % share; }
  [[nodiscard]] index_t keys(index_t item) const { return past + item / share + 1; }
};

/// \brief What the gradient of a task reads and writes besides.
struct attention_gradient_task {
  const float* dout;
  float* dq;
  float* dk;
  float* dv;
  index_t dout_stride, dq_stride, dk_stride, dv_stride;
};

/// \brief Keys that are worked on at once: their scores for all items of a tile stay in the first-level
/// cache.
inline constexpr index_t attention_block = 64;

}  // namespace detail
}  // namespace PESC_CPU_ABI
}  // namespace pesc::cpu
