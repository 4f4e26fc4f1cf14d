// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <concepts>

#include "pesc/core/extent.hpp"
#include "pesc/core/random.hpp"
#include "pesc/nn/parameters.hpp"

namespace pesc {

/// \brief No low-rank update: projections stay as they are.
struct no_lora {
  static constexpr int rank = 0;
};

/// \brief A low-rank update of each frozen projection (Hu et al., 2021): W + alpha / rank · B A.
///
/// \tparam Rank  columns of B; `dynamic`: taken from the shape of the layer
template <int Rank>
struct lora {
  static_assert(Rank == dynamic || Rank >= 1, "pesc: lora rank must be positive; use no_lora for none");
  static constexpr int rank = Rank;
};

/// \brief Whether and how projections carry a low-rank update.
template <class L>
concept Lora = requires {
  { L::rank } -> std::convertible_to<int>;
};

static_assert(Lora<no_lora> && Lora<lora<8>> && Lora<lora<dynamic>>);

/// \brief The trainable pair of one projection: `a` [rank, in] and `b` [out, rank]; both empty without LoRA.
template <class Space = host_space>
struct lora_parameters {
  matrix_view<float, Space> a;
  matrix_view<float, Space> b;

  [[nodiscard]] constexpr index_t rank() const { return a.rows; }

  [[nodiscard]] static lora_parameters carve(parameter_arena<Space>& arena, index_t rank, index_t in,
                                             index_t out) {
    if (rank == 0) return {};
    return {arena.take(rank, in), arena.take(out, rank)};
  }

  /// \brief Calls `f(name, tensor)` for each tensor.
  template <class F>
  void for_each(const std::string& prefix, F&& f) const {
    if (rank() == 0) return;
    f(prefix + "lora_A", as_batch(a));
    f(prefix + "lora_B", as_batch(b));
  }
};

/// \brief Start of a LoRA pair: A Kaiming-uniform, B zero, so that the projection is unchanged at first.
inline void initialize(const lora_parameters<>& p, const random_stream& stream) {
  if (p.rank() == 0) return;
  fill_uniform(as_batch(p.a), p.a.cols, stream);
  fill_zero(as_batch(p.b));
}

/// \brief Run-time numbers of the low-rank updates of a layer.
struct lora_run {
  float scale = 1.0f;    ///< alpha / rank
  float dropout = 0.0f;  ///< on the input of A, training only
  random_stream stream{};
};

/// \brief Adds `scale · B A` to a dense weight [out, in], for a merged checkpoint.
inline void merge(const lora_parameters<>& p, float scale, matrix_view<float> weight) {
  PESC_EXPECTS(p.rank() == 0 || (weight.rows == p.b.rows && weight.cols == p.a.cols),
               "merge a low-rank update of ", p.b.rows, " x ", p.a.cols, " into a weight of ", weight.rows,
               " x ", weight.cols);
  for (index_t i = 0; i < weight.rows; ++i)
    for (index_t j = 0; j < weight.cols && p.rank() > 0; ++j) {
      double sum = 0.0;
      for (index_t r = 0; r < p.rank(); ++r)
        sum += static_cast<double>(p.b(i, r)) * static_cast<double>(p.a(r, j));
      weight(i, j) += scale * static_cast<float>(sum);
    }
}

}  // namespace pesc
