// SPDX-License-Identifier: Apache-2.0
// Included inside `struct attention_kernels` by attention.inl.

static index_t attention_backward_scratch(index_t head_dim) {
  return (3 * head_dim + 2 * round_up(head_dim, simd::width) + 2 * attention_block + 3) * attention_lanes;
}

/// Head vectors of the items of a tile, one row each of `stride` elements, times `scale`; zeros beyond.
template <class Offset>
static void gather_item_rows(const float* rows, index_t first, index_t items, index_t head_dim, float scale,
                             const Offset& offset, float* packed, index_t stride) {
  std::fill_n(packed, attention_lanes * stride, 0.0f);
  for (index_t l = 0; l < items; ++l)
    row_kernels::scaled(rows + offset(first + l), scale, packed + l * stride, head_dim);
}

/// Scores become probabilities, gradients of probabilities become gradients of scores.
static void differentiate(float* scores, float* gradients, index_t keys, bool masked, const float* limits,
                          const float* lses, const float* means) {
  for (index_t at = 0; at < attention_lanes; at += simd::width) {
    const vec limit = simd::load(limits + at);
    const vec lse = simd::load(lses + at);
    const vec mean = simd::load(means + at);
    for (index_t j = 0; j < keys; ++j) {
      float* score = scores + j * attention_lanes + at;
      float* gradient = gradients + j * attention_lanes + at;
      vec p = exp(simd::sub(simd::load(score), lse));
      if (masked) p = simd::select(simd::less(simd::set(static_cast<float>(j)), limit), p, simd::zero());
      simd::store(score, p);
      simd::store(gradient, simd::mul(p, simd::sub(simd::load(gradient), mean)));
    }
  }
}

/// Writes dq of the items, adds to dk and dv of the keys that they see.
static void attend_backward_tile(const attention_task& task, const attention_gradient_task& gradient,
                                 index_t first, index_t items, float* scratch) {
  constexpr index_t lanes = attention_lanes;
  const index_t size = task.head_dim;
  const index_t padded = round_up(size, simd::width);
  float* query_columns = scratch;
  float* dout_columns = query_columns + size * lanes;
  float* dquery_columns = dout_columns + size * lanes;
  float* query_rows = dquery_columns + size * lanes;
  float* dout_rows = query_rows + padded * lanes;
  float* scores = dout_rows + padded * lanes;
  float* gradients = scores + attention_block * lanes;
  float* lses = gradients + attention_block * lanes;
  float* means = lses + lanes;
  float* limits = means + lanes;

  const auto query = [&](index_t i) { return task.query(i); };
  const auto dout = [&](index_t i) { return i / task.share * gradient.dout_stride + i % task.share * size; };
  gather_columns(task.q, first, items, size, task.scale, query, query_columns);
  gather_columns(gradient.dout, first, items, size, 1.0f, dout, dout_columns);
  gather_item_rows(task.q, first, items, size, task.scale, query, query_rows, padded);
  gather_item_rows(gradient.dout, first, items, size, 1.0f, dout, dout_rows, padded);
  std::fill_n(dquery_columns, size * lanes, 0.0f);
  for (index_t l = 0; l < lanes; ++l) {
    // Lanes without an item get probabilities of zero.
    lses[l] = l < items ? task.lse[task.statistic(first + l)] : HUGE_VALF;
    means[l] = l < items ? reduce_kernels::dot(gradient.dout + dout(first + l),
                                               task.out + task.output(first + l), size)
                         : 0.0f;
  }

  const index_t keys = task.keys(first + items - 1);
  for (index_t begin = 0; begin < keys; begin += attention_block) {
    const index_t n = std::min(attention_block, keys - begin);
    const float* k = task.k + begin * task.k_stride;
    const float* v = task.v + begin * task.v_stride;
    write_limits(task, first, items, begin, limits);
    multiply_small<product_mode::overwrite>(
        {query_columns, lanes, size, k, 1, task.k_stride, scores, lanes, n, lanes, nullptr});
    multiply_small<product_mode::overwrite>(
        {dout_columns, lanes, size, v, 1, task.v_stride, gradients, lanes, n, lanes, nullptr});
    differentiate(scores, gradients, n, begin + n > task.keys(first), limits, lses, means);
    multiply_small<product_mode::add>(
        {gradients, lanes, n, k, task.k_stride, 1, dquery_columns, lanes, size, lanes, nullptr});
    multiply_small<product_mode::add>({dout_rows, padded, lanes, scores, 1, lanes,
                                       gradient.dv + begin * gradient.dv_stride, gradient.dv_stride, n, size,
                                       nullptr});
    multiply_small<product_mode::add>({query_rows, padded, lanes, gradients, 1, lanes,
                                       gradient.dk + begin * gradient.dk_stride, gradient.dk_stride, n, size,
                                       nullptr});
  }
  for (index_t l = 0; l < items; ++l) {
    const index_t item = first + l;
    float* dq = gradient.dq + item / task.share * gradient.dq_stride + item % task.share * size;
    for (index_t c = 0; c < size; ++c) dq[c] = dquery_columns[c * lanes + l] * task.scale;
  }
}
