// SPDX-License-Identifier: Apache-2.0
#pragma once

// Stage 3. Reads x [T, H] and the frozen projections with their low-rank updates; writes h [T, H] = down(act(gate x) * up x)
// once per token; keeps the pre-activations [T, F] (or computes them again) and h. Backward reads dh, adds to dx and to the
// low-rank gradients.

#include "pesc/moe/shape.hpp"
#include "pesc/nn/activation.hpp"
#include "pesc/nn/linear.hpp"
#include "pesc/quant/unquantized.hpp"

namespace pesc {

/// \brief The path that every token takes once, whatever its experts.
///
/// A type with the member templates `frozen<Format, Space>`, `parameters<Space>` (carve, for_each, initialize) and
/// `state<Space>` (carve; its `out` is [T, H]), and the free functions `shared_forward` and `shared_backward`.
template <class S>
concept SharedPath = std::default_initializable<S> && requires {
  typename S::template frozen<unquantized<float>, host_space>;
  typename S::template parameters<host_space>;
  typename S::template state<host_space>;
};

/// \brief The gated feed-forward network of Llama-type models (SwiGLU with `silu`), frozen, with optional LoRA.
template <Activation Act = silu>
struct gated_ffn {
  using activation = Act;

  /// \brief gate and up [F, H], down [H, F].
  template <QuantFormat Format, class Space>
  struct frozen {
    frozen_linear<Format, Space> gate, up, down;

    /// \throws shape_error naming the projection whose size does not fit
    void check(const moe_shape& shape) const {
      check_one(gate, "gate", shape.intermediate, shape.hidden);
      check_one(up, "up", shape.intermediate, shape.hidden);
      check_one(down, "down", shape.hidden, shape.intermediate);
    }

   private:
    static void check_one(const frozen_linear<Format, Space>& p, const char* name, index_t out, index_t in) {
      PESC_EXPECTS(p.out() == out && p.in() == in, name, " projection is ", p.out(), " x ", p.in(),
                   ", expected ", out, " x ", in);
      PESC_EXPECTS(p.bias.empty() || p.bias.size == out, name, " bias has ", p.bias.size,
                   " entries, expected ", out);
    }
  };

  /// \brief The low-rank updates of the three projections.
  template <class Space>
  struct parameters {
    lora_parameters<Space> gate, up, down;

    [[nodiscard]] static parameters carve(parameter_arena<Space>& arena, const moe_shape& s) {
      return {lora_parameters<Space>::carve(arena, s.lora_rank, s.hidden, s.intermediate),
              lora_parameters<Space>::carve(arena, s.lora_rank, s.hidden, s.intermediate),
              lora_parameters<Space>::carve(arena, s.lora_rank, s.intermediate, s.hidden)};
    }

    template <class F>
    void for_each(F&& f) const {
      gate.for_each("gate_proj.", f);
      up.for_each("up_proj.", f);
      down.for_each("down_proj.", f);
    }

    void initialize(random_stream stream) const {
      for (const auto* p : {&gate, &up, &down}) {
        pesc::initialize(*p, stream);
        ++stream.part;
      }
    }
  };

  template <class Space>
  struct state {
    matrix_view<float, Space> gate, up;  ///< [T, F], before the activation
    matrix_view<float, Space> out;       ///< [T, H]
    linear_state<Space> gate_lora, up_lora, down_lora;

    [[nodiscard]] static state carve(workspace<Space>& ws, const moe_shape& s, index_t tokens,
                                     bool recompute) {
      state out;
      if (!recompute) {
        out.gate = ws.template take<float>(tokens, s.intermediate);
        out.up = ws.template take<float>(tokens, s.intermediate);
      }
      out.out = ws.template take<float>(tokens, s.hidden);
      out.gate_lora = linear_state<Space>::carve(ws, tokens, s.lora_rank);
      out.up_lora = linear_state<Space>::carve(ws, tokens, s.lora_rank);
      out.down_lora = linear_state<Space>::carve(ws, tokens, s.lora_rank);
      return out;
    }
  };
};

static_assert(SharedPath<gated_ffn<silu>>);

namespace detail {

/// \brief The random streams of the three projections of one call.
inline lora_run ffn_lora_run(const moe_shape& shape, const moe_options& options, const moe_run& run,
                             std::uint8_t part) {
  return {.scale = shape.lora_rank > 0 ? options.lora_alpha / static_cast<float>(shape.lora_rank) : 0.0f,
          .dropout = run.training ? options.lora_dropout : 0.0f,
          .stream = run.stream(random_site::lora_dropout, part)};
}

/// \brief LoRA streams of attention projections follow those of the feed-forward network.
inline constexpr std::uint8_t attention_lora_part = 4;

/// \brief Writes the pre-activations of gate and up.
template <Compute C, class X, class F, class P, class Space, class S>
void ffn_gate_up(X& ctx, matrix_view<const float, Space> x, const F& frozen, const P& p, const S& state,
                 matrix_view<float, Space> gate, matrix_view<float, Space> up, const moe_shape& shape,
                 const moe_options& options, const moe_run& run, workspace<Space>& ws) {
  linear_forward<C>(ctx, x, frozen.gate, p.gate, ffn_lora_run(shape, options, run, 0), gate, state.gate_lora,
                    ws);
  linear_forward<C>(ctx, x, frozen.up, p.up, ffn_lora_run(shape, options, run, 1), up, state.up_lora, ws);
}

}  // namespace detail

/// \brief state.out = down(act(gate x) * up x).
template <Compute C, class X, class Act, class F, class P, class S, class Space>
void shared_forward(X& ctx, gated_ffn<Act>, matrix_view<const float, Space> x, const F& frozen, const P& p,
                    const S& state, const moe_shape& shape, const moe_options& options, const moe_run& run,
                    workspace<Space>& ws) {
  const typename workspace<Space>::scope scratch(ws);
  const bool kept = state.gate.rows == x.rows && state.gate.cols == shape.intermediate;
  auto gate = kept ? state.gate : ws.template take<float>(x.rows, shape.intermediate);
  auto up = kept ? state.up : ws.template take<float>(x.rows, shape.intermediate);
  auto product = ws.template take<float>(x.rows, shape.intermediate);
  detail::ffn_gate_up<C>(ctx, x, frozen, p, state, gate, up, shape, options, run, ws);
  if (!ws.counting()) gated_activate(ctx, Act{}, as_const(gate), as_const(up), product);
  linear_forward<C>(ctx, as_const(product), frozen.down, p.down, detail::ffn_lora_run(shape, options, run, 2),
                    state.out, state.down_lora, ws);
}

/// \brief dx += the gradient through the network; adds to the low-rank gradients.
template <Compute C, class X, class Act, class F, class P, class S, class Space>
void shared_backward(X& ctx, gated_ffn<Act>, matrix_view<const float, Space> x, const F& frozen, const P& p,
                     const S& state, matrix_view<const float, Space> dh, matrix_view<float, Space> dx,
                     const P& gradient, const moe_shape& shape, const moe_options& options,
                     const moe_run& run, workspace<Space>& ws) {
  const typename workspace<Space>::scope scratch(ws);
  const bool kept = state.gate.rows == x.rows && state.gate.cols == shape.intermediate;
  auto gate = kept ? state.gate : ws.template take<float>(x.rows, shape.intermediate);
  auto up = kept ? state.up : ws.template take<float>(x.rows, shape.intermediate);
  auto product = ws.template take<float>(x.rows, shape.intermediate);
  auto dproduct = ws.template take<float>(x.rows, shape.intermediate);
  if (!kept) detail::ffn_gate_up<C>(ctx, x, frozen, p, state, gate, up, shape, options, run, ws);
  if (!ws.counting() && shape.lora_rank > 0)
    gated_activate(ctx, Act{}, as_const(gate), as_const(up), product);
  linear_backward<C>(ctx, as_const(product), frozen.down, p.down,
                     detail::ffn_lora_run(shape, options, run, 2), dh, dproduct, false, gradient.down,
                     state.down_lora, ws);
  // `product` is free again: it takes the gradient of gate, and `dproduct` that of up.
  auto dgate = product;
  auto dup = dproduct;
  if (!ws.counting())
    gated_activate_backward(ctx, Act{}, as_const(gate), as_const(up), as_const(dproduct), dgate, dup);
  linear_backward<C>(ctx, x, frozen.gate, p.gate, detail::ffn_lora_run(shape, options, run, 0),
                     as_const(dgate), dx, true, gradient.gate, state.gate_lora, ws);
  linear_backward<C>(ctx, x, frozen.up, p.up, detail::ffn_lora_run(shape, options, run, 1), as_const(dup), dx,
                     true, gradient.up, state.up_lora, ws);
}

}  // namespace pesc
