// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "pesc/core/workspace.hpp"
#include "pesc/nn/lora.hpp"
#include "pesc/quant/quantized_matrix.hpp"

namespace pesc {

/// \brief A frozen projection y = x Wᵀ + bias: the weight [out, in] as the backend's kernels read it.
template <QuantFormat Format, class Space = host_space>
struct frozen_linear {
  quantized_view<Format, kernel_layout<Space>, Space> weight;
  vector_view<const float, Space> bias;  ///< [out] or empty

  [[nodiscard]] constexpr index_t in() const { return weight.cols; }
  [[nodiscard]] constexpr index_t out() const { return weight.rows; }
};

/// \brief What a linear layer keeps for its backward: x Aᵀ [tokens, rank].
template <class Space = host_space>
struct linear_state {
  matrix_view<float, Space> xa;

  [[nodiscard]] static linear_state carve(workspace<Space>& ws, index_t tokens, index_t rank) {
    if (rank == 0) return {};
    return {ws.template take<float>(tokens, rank)};
  }
};

namespace detail {

/// \brief The input of A: x itself, or x with dropout in scratch.
template <class X, class Space>
matrix_view<const float, Space> lora_input(X& ctx, matrix_view<const float, Space> x, const lora_run& run,
                                           workspace<Space>& ws) {
  if (run.dropout <= 0.0f) return x;
  auto dropped = ws.template take<float>(x.rows, x.cols);
  if (!ws.counting()) dropout(ctx, x, run.dropout, run.stream, dropped);
  return dropped;
}

}  // namespace detail

/// \brief y = x Wᵀ + bias + scale · (dropout(x) Aᵀ) Bᵀ, and keeps dropout(x) Aᵀ.
///
/// \tparam C  how the frozen product is formed
template <Compute C, class X, QuantFormat Format, class Space>
void linear_forward(X& ctx, matrix_view<const float, Space> x, const frozen_linear<Format, Space>& layer,
                    const lora_parameters<Space>& lora, const lora_run& run, matrix_view<float, Space> y,
                    const linear_state<Space>& state, workspace<Space>& ws) {
  quantized_matmul(ctx, x, layer.weight, y, {.round_bf16 = std::is_same_v<C, bf16>}, ws);
  if (!layer.bias.empty() && !ws.counting()) add_bias(ctx, layer.bias, y);
  if (lora.rank() == 0) return;
  const typename workspace<Space>::scope scratch(ws);
  const auto input = detail::lora_input(ctx, x, run, ws);
  matmul(ctx, input, as_const(lora.a), state.xa, {.transpose_b = true}, ws);
  matmul(ctx, as_const(state.xa), as_const(lora.b), y,
         {.alpha = run.scale, .transpose_b = true, .accumulate = true}, ws);
}

/// \brief dx += dy W + the low-rank part; adds to the gradients of A and B. Never forms a gradient of W.
///
/// \param accumulate  add to dx instead of writing it
template <Compute C, class X, QuantFormat Format, class Space>
void linear_backward(X& ctx, matrix_view<const float, Space> x, const frozen_linear<Format, Space>& layer,
                     const lora_parameters<Space>& lora, const lora_run& run,
                     matrix_view<const float, Space> dy, matrix_view<float, Space> dx, bool accumulate,
                     const lora_parameters<Space>& gradient, const linear_state<Space>& state,
                     workspace<Space>& ws) {
  quantized_matmul(ctx, dy, layer.weight, dx,
                   {.transpose = true, .accumulate = accumulate, .round_bf16 = std::is_same_v<C, bf16>}, ws);
  if (lora.rank() == 0) return;
  const typename workspace<Space>::scope scratch(ws);
  auto dxa = ws.template take<float>(dy.rows, lora.rank());
  matmul(ctx, dy, as_const(lora.b), dxa, {.alpha = run.scale}, ws);
  matmul(ctx, dy, as_const(state.xa), gradient.b,
         {.alpha = run.scale, .transpose_a = true, .accumulate = true}, ws);
  {
    const typename workspace<Space>::scope inner(ws);
    const auto input = detail::lora_input(ctx, x, run, ws);
    matmul(ctx, as_const(dxa), input, gradient.a, {.transpose_a = true, .accumulate = true}, ws);
  }
  if (run.dropout <= 0.0f) {
    matmul(ctx, as_const(dxa), as_const(lora.a), dx, {.accumulate = true}, ws);
    return;
  }
  auto through = ws.template take<float>(dx.rows, dx.cols);
  matmul(ctx, as_const(dxa), as_const(lora.a), through, {}, ws);
  if (ws.counting()) return;
  dropout(ctx, as_const(through), run.dropout, run.stream, through);
  add_scaled(ctx, as_const(through), 1.0f, dx);
}

}  // namespace pesc
