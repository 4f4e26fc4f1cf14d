// SPDX-License-Identifier: Apache-2.0
// Included once per instruction set, inside namespace `pesc::cpu::detail::<isa>` and its target region, after
// nf4.inl.

/// \brief The first `n` lanes of `x` as `T`.
template <Scalar T>
[[gnu::always_inline]] inline void store_some(T* out, vec x, index_t n) {
  if (n >= simd::width) {
    simd::store_as(out, x);
    return;
  }
  T lanes[simd::width];
  simd::store_as(lanes, x);
  std::memcpy(out, lanes, static_cast<std::size_t>(n) * sizeof(T));
}

struct quantize_kernels {
  /// \brief Weights of one cell, rows of `out` being rows of the matrix; `tile` holds 64 x 64 floats.
  template <Scalar T>
  static inline void dequantize_cell(const frozen_weight& w, index_t panel, index_t cell, matrix_view<T> out,
                                     float* tile) {
    const tile_place place{tile, 64 * sliver_cols};
    cell_scales scales;
    decode_any_cell(w, code_table(w), panel, cell, true, scales, place);
    const index_t rows = std::min<index_t>(64, w.layout.rows - panel * 64);
    const index_t cols = std::min<index_t>(64, w.layout.cols - cell * 64);
    for (index_t r = 0; r < rows; ++r)
      for (index_t k = 0; k < cols; k += simd::width)
        store_some(out.row(panel * 64 + r) + cell * 64 + k, simd::load(place.at(r, k)), cols - k);
  }

  /// \brief `n` weights of one block from flattened weight `i` on, codes in the order of checkpoints.
  template <Scalar T>
  static inline void dequantize_run(const frozen_weight& w, index_t i, index_t n, block_scale scale, T* out) {
    if (w.layout.scales == scale_kind::with_minimum || w.layout.element == element_kind::code8) {
      for (index_t end = i + n; i < end; ++i) *out++ = single(w, i, scale, T{});
      return;
    }
    const code_table table(w);
    const index_t end = i + n;
    for (; i < end && i % 2 != 0; ++i) *out++ = single(w, i, scale, T{});
    const vec scales = simd::set(scale.factor);
    for (; i + 32 <= end; i += 32, out += 32) {
      vec block[32 / simd::width];
      decode_run(w.bytes + i / 2, table, block);
      for (index_t v = 0; v < 32 / simd::width; ++v)
        simd::store_as(out + v * simd::width, simd::mul(block[v], scales));
    }
    for (; i < end; ++i) *out++ = single(w, i, scale, T{});
  }

  template <Scalar S, Scalar T>
  static inline void convert_run(const S* x, T* out, index_t n) {
    index_t i = 0;
    for (; i + simd::width <= n; i += simd::width) simd::store_as(out + i, simd::load_as_float(x + i));
    for (; i < n; ++i) out[i] = from_float<T>(to_float(x[i]));
  }

  /// \brief Codes and scales of whole blocks by the portable rule; the scale of weights not finite is
  /// infinite.
  template <Scalar T>
  static inline void quantize_whole_blocks(const format_info& info, const T* x, index_t blocks,
                                           std::uint8_t* codes, float* absmax) {
    const code_finder finder(info);
    // Scales of some blocks first: their long chains of dependent operations then run side by side.
    constexpr index_t together = 16;
    for (index_t first = 0; first < blocks; first += together) {
      const index_t last = std::min(first + together, blocks);
      for (index_t b = first; b < last; ++b) absmax[b] = largest_magnitude(x + b * info.block, info.block);
      for (index_t b = first; b < last; ++b)
        encode_block(x + b * info.block, info.block, absmax[b], finder, codes + b * info.block / 2);
    }
  }

 private:
  template <Scalar T>
  static inline float largest_magnitude(const T* x, index_t n) {
    const vec infinity = simd::set(HUGE_VALF);
    vec largest = simd::zero();
    for (index_t i = 0; i < n; i += simd::width) {
      const vec magnitude = simd::abs(simd::load_as_float(x + i));
      largest = simd::max(largest, simd::select(simd::less(magnitude, infinity), magnitude, infinity));
    }
    return simd::reduce_max(largest);
  }

  template <Scalar T>
  static inline void encode_block(const T* x, index_t n, float absmax, const code_finder& finder,
                                  std::uint8_t* codes) {
    const vec reciprocal = simd::set(pesc::detail::block_divisor(absmax, true).divisor);
    for (index_t i = 0; i < n; i += simd::width)
      encode_run(simd::mul(simd::load_as_float(x + i), reciprocal), finder, codes + i / 2);
  }

  template <Scalar T>
  static inline T single(const frozen_weight& w, index_t i, block_scale scale, T) {
    const float level = w.layout.element == element_kind::code8
                            ? static_cast<float>(static_cast<std::int8_t>(w.bytes[i]))
                            : w.levels[pesc::detail::row_block_code(w.bytes, i)];
    return from_float<T>(w.layout.scales == scale_kind::with_minimum
                             ? pesc::mul_then_add(level, scale.factor, scale.minimum)
                             : level * scale.factor);
  }
};
