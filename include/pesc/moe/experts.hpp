// SPDX-License-Identifier: Apache-2.0
#pragma once

// Stage 4. Reads h [T, H], the groups and the adapters; writes e [N, H] = s · Up(act(Down(h))) in grouped order; keeps the
// bottleneck z [N, R]. Backward reads dy and the gates; writes the gradient of the gates, adds to dh and to the adapters'
// gradients. e itself is never kept: with c = act(z) and t = Upᵀ dy, the gradient of a gate is s · ⟨t, c⟩.

#include "pesc/core/extent.hpp"
#include "pesc/core/workspace.hpp"
#include "pesc/moe/shape.hpp"
#include "pesc/nn/activation.hpp"
#include "pesc/nn/parameters.hpp"

namespace pesc {

/// \brief What an expert reads: the input of the layer, or the output of the shared path.
enum class expert_input { layer_input, shared_output };

/// \brief What a token's experts compute, on rows grouped by expert.
///
/// A type with `rank` (an int or `dynamic`), `input`, the member templates `parameters<Space>` (carve, for_each,
/// initialize) and `state<Space>` (carve), and the free functions `experts_forward` and `experts_backward`.
template <class E>
concept Expert = std::default_initializable<E> && requires {
  { E::rank } -> std::convertible_to<int>;
  { E::input } -> std::convertible_to<expert_input>;
  typename E::template parameters<host_space>;
  typename E::template state<host_space>;
};

/// \brief A bottleneck behind the shared network: s · Up(act(Down(h))), without bias (PESC, section 2.2).
///
/// \tparam Rank  width of the bottleneck; `dynamic`: from the shape
template <int Rank, Activation Act = gelu>
struct adapter_expert {
  static_assert(Rank == dynamic || Rank >= 1, "pesc: adapter rank must be positive");

  static constexpr int rank = Rank;
  static constexpr expert_input input = expert_input::shared_output;
  using activation = Act;

  template <class Space>
  struct parameters {
    batch_view<float, Space> down;  ///< [experts, rank, hidden]
    batch_view<float, Space> up;    ///< [experts, hidden, rank]

    [[nodiscard]] static parameters carve(parameter_arena<Space>& arena, const moe_shape& s) {
      return {arena.take(s.experts, s.rank, s.hidden), arena.take(s.experts, s.hidden, s.rank)};
    }

    template <class F>
    void for_each(F&& f) const {
      f(std::string("adapter_down"), down);
      f(std::string("adapter_up"), up);
    }

    /// \brief Down Kaiming-uniform, up zero: every expert starts as the identity around the shared network.
    void initialize(const random_stream& stream) const {
      fill_uniform(down, down.cols, stream);
      fill_zero(up);
    }
  };

  template <class Space>
  struct state {
    matrix_view<float, Space> z;  ///< [slots, rank], before the activation

    [[nodiscard]] static state carve(workspace<Space>& ws, const moe_shape& s, index_t slots) {
      return {ws.template take<float>(slots, s.rank)};
    }
  };
};

static_assert(Expert<adapter_expert<64, gelu>>);

namespace detail {

/// \brief Rows of h in grouped order with the dropout of their slots.
template <class X, class Space>
matrix_view<float, Space> expert_rows(X& ctx, matrix_view<const float, Space> h,
                                      const slot_groups<Space>& groups, const moe_options& options,
                                      const moe_run& run, workspace<Space>& ws) {
  auto rows = ws.template take<float>(groups.slots.size, h.cols);
  if (ws.counting()) return rows;
  gather_rows(ctx, h, as_const(groups.token_of), rows);
  if (run.training && options.adapter_dropout > 0.0f)
    dropout_rows(ctx, as_const(rows), as_const(groups.slots), options.adapter_dropout,
                 run.stream(random_site::adapter_dropout), rows);
  return rows;
}

}  // namespace detail

/// \brief Writes e [slots, hidden], rows in grouped order; rows beyond the kept slots are not touched.
template <class X, int Rank, class Act, class P, class S, class Space>
void experts_forward(X& ctx, adapter_expert<Rank, Act>, matrix_view<const float, Space> h,
                     const slot_groups<Space>& groups, const P& p, const S& state,
                     matrix_view<float, Space> e, const moe_options& options, const moe_run& run,
                     workspace<Space>& ws) {
  const typename workspace<Space>::scope scratch(ws);
  const auto rows = detail::expert_rows(ctx, h, groups, options, run, ws);
  auto c = ws.template take<float>(state.z.rows, state.z.cols);
  const auto offsets = as_const(groups.expert_offsets);
  grouped_matmul(ctx, offsets, as_const(rows), as_const(p.down), state.z, {.transpose_b = true}, ws);
  if (!ws.counting()) activate(ctx, Act{}, as_const(state.z), c);
  grouped_matmul(ctx, offsets, as_const(c), as_const(p.up), e,
                 {.alpha = options.expert_scale, .transpose_b = true}, ws);
}

/// \brief Writes `dgate` [slots] (0 where dropped); adds to `dh` and to the gradient.
///
/// \param gate  [slots], of the forward call
/// \param dy  [tokens, hidden]
template <class X, int Rank, class Act, class P, class S, class Space>
void experts_backward(X& ctx, adapter_expert<Rank, Act>, matrix_view<const float, Space> h,
                      const slot_groups<Space>& groups, vector_view<const float, Space> gate, const P& p,
                      const S& state, matrix_view<const float, Space> dy, vector_view<float, Space> dgate,
                      matrix_view<float, Space> dh, const P& gradient, const moe_options& options,
                      const moe_run& run, workspace<Space>& ws) {
  const typename workspace<Space>::scope scratch(ws);
  const index_t slots = groups.slots.size;
  const index_t rank = state.z.cols;
  const auto offsets = as_const(groups.expert_offsets);
  auto dy_rows = ws.template take<float>(slots, dy.cols);
  auto t = ws.template take<float>(slots, rank);
  auto c = ws.template take<float>(slots, rank);
  auto gate_rows = ws.template take<float>(slots);
  auto dgate_rows = ws.template take<float>(slots);
  if (!ws.counting()) {
    gather_rows(ctx, dy, as_const(groups.token_of), dy_rows);
    activate(ctx, Act{}, as_const(state.z), c);
    gather_values(ctx, gate, as_const(groups.slots), gate_rows);
  }
  grouped_matmul(ctx, offsets, as_const(dy_rows), as_const(p.up), t, {.alpha = options.expert_scale}, ws);
  if (!ws.counting()) {
    row_dot(ctx, as_const(t), as_const(c), dgate_rows);
    scatter_values(ctx, as_const(dgate_rows), as_const(groups.slot_of), dgate);
    scale_rows(ctx, as_const(gate_rows), c);
    scale_rows(ctx, as_const(gate_rows), t);
    activate_backward(ctx, Act{}, as_const(state.z), as_const(t), t);
  }
  grouped_outer(ctx, offsets, as_const(dy_rows), as_const(c), gradient.up, options.expert_scale, ws);
  const auto rows = detail::expert_rows(ctx, h, groups, options, run, ws);
  grouped_outer(ctx, offsets, as_const(t), as_const(rows), gradient.down, 1.0f, ws);
  auto drows = dy_rows;  // free again
  grouped_matmul(ctx, offsets, as_const(t), as_const(p.down), drows, {}, ws);
  if (ws.counting()) return;
  if (run.training && options.adapter_dropout > 0.0f)
    dropout_rows(ctx, as_const(drows), as_const(groups.slots), options.adapter_dropout,
                 run.stream(random_site::adapter_dropout), drows);
  sum_slots(ctx, groups, as_const(drows), dh);
}

}  // namespace pesc
